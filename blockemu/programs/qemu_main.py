"""The program ``blockemu-qemu``."""

import sys

from blockemu.programs.process import prepare


def main() -> int:
    """Run the program; return its exit status."""
    prepare()
    from blockemu.programs.qemu_cli import (
        main as run,  # what it imports is executed when it is used
    )

    return run()


if __name__ == "__main__":
    sys.exit(main())
