"""``python -m blockemu``."""

import sys


def main() -> int:
    """Run the program; return its exit status."""
    from blockemu.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
