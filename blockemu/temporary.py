"""Temporary overlays: what is written to an image opened so is forgotten.

After bdrv_append_temp_snapshot and create_tmp_file, block.c.
"""

import errno
import os
import random
import string
from typing import Any

from blockemu.creation import ImageCreator
from blockemu.errors import QmpError, Wrapped
from blockemu.node import Flags, Node
from blockemu.opening import Opener

_KEPT = ("read-only", "discard")  # what the overlay takes from the image
_LETTERS = string.ascii_letters + string.digits
_UNSAFE = {"direct": False, "no-flush": True}


class NoTemporaryFile(QmpError):
    """(name, strerror)."""

    template = "Could not open temporary file '{}': {}"


class SizeUnknown(QmpError):
    """(strerror)."""

    template = "Could not get image size: {}"


async def open_temporary(
    opener: Opener,
    name: str | None,
    options: dict[str, Any],
    defaults: dict[str, Any] | None = None,
    flags: Flags | None = None,
) -> Node[Any]:
    """Open an image read-only, below a new qcow2 image that nobody else can find.

    ``options``, ``defaults`` and ``flags`` are those of ``Opener.open``; the overlay is writable if
    they do not say that the image is not.

    Raises:
        QmpError: it cannot be; nothing is left open.

    """
    defaults = defaults or {}
    kept = {key: value for key, value in (defaults | options).items() if key in _KEPT}
    options = {key: value for key, value in options.items() if key != "read-only"}
    read_only = {"read-only": True, "auto-read-only": False}
    base = await opener.open(options, filename=name, defaults=defaults | read_only, flags=flags)
    base.holds += 1
    try:
        return await _cover(opener, base, kept, flags)
    finally:
        base.holds -= 1
        await opener.graph.release(base)


async def _cover(
    opener: Opener, base: Node[Any], kept: dict[str, Any], flags: Flags | None
) -> Node[Any]:
    try:
        size = base.length
    except OSError as e:
        raise SizeUnknown(os.strerror(e.errno or errno.EIO)) from e
    path = _new_file()
    try:
        try:
            await ImageCreator(opener).create_by_text("qcow2", path, {"size": str(size)})
        except QmpError as e:
            raise Wrapped(f"Could not create temporary overlay '{path}'", e) from e
        return await opener.open(
            {
                **kept,
                "driver": "qcow2",
                "file": {"driver": "file", "filename": path},
                "backing": base.name,
                "cache": _UNSAFE,
            },
            flags=flags,
        )
    finally:
        os.unlink(path)  # noqa: PTH108


def _new_file() -> str:
    """Make an empty file; return its name."""
    folder = os.environ.get("TMPDIR") or "/tmp"
    if folder == "/tmp":
        folder = "/var/tmp"  # images may be bigger than memory
    while True:
        path = f"{folder}/vl.{''.join(random.choices(_LETTERS, k=6))}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        except OSError as e:
            raise NoTemporaryFile(path, os.strerror(e.errno or errno.EIO)) from e
        os.close(fd)
        return path
