"""Make the disk of ``make run``: an empty qcow2 image of 64 MiB, with no program's help."""

import sys
from pathlib import Path

from blockemu.images.qcow2 import new_image

SIZE = 64 << 20


def main(name: str) -> None:
    """Write the image, unless there is one."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(new_image(SIZE))


if __name__ == "__main__":
    main(sys.argv[1])
