"""Small files, read whole, with errors in the words of QEMU's library (g_file_get_contents)."""

import os

from blockemu.errors import QmpError


class UnreadableFile(QmpError):
    """(what was tried, path, why)."""

    template = "{} \u201c{}\u201d: {}"


def read_file(path: str) -> bytes:
    """Return what a file holds.  Raises UnreadableFile."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise UnreadableFile("Failed to open file", path, os.strerror(e.errno or 0)) from e
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
    except OSError as e:
        raise UnreadableFile("Error reading file", path, os.strerror(e.errno or 0)) from e
    finally:
        os.close(fd)
    return b"".join(parts)
