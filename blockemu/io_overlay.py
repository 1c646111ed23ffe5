"""A temporary overlay: what is written to an image opened so is forgotten.

After bdrv_append_temp_snapshot, block.c.
"""

import os
import tempfile
from typing import Any

from blockemu.images.qcow2.new import new_image
from blockemu.node import Node
from blockemu.opening import Opener


async def open_temporary(
    opener: Opener, name: str | None, options: dict[str, Any], defaults: dict[str, Any]
) -> Node[Any]:
    """Open an image read-only, below a new qcow2 image that nobody else can find."""
    options = {key: value for key, value in options.items() if key != "read-only"}
    base = await opener.open(options, filename=name, defaults=defaults | {"read-only": True})
    base.holds += 1
    try:
        fd, path = tempfile.mkstemp(prefix="vl.", dir=os.environ.get("TMPDIR", "/var/tmp"))
        try:
            with os.fdopen(fd, "wb") as f:
                f.write(new_image(base.length))
            return await opener.open(
                {
                    "driver": "qcow2",
                    "file": {"driver": "file", "filename": path},
                    "backing": base.name,
                },
                defaults=defaults | {"cache": {"direct": False, "no-flush": True}},
            )
        finally:
            os.unlink(path)  # noqa: PTH108
    finally:
        base.holds -= 1
        await opener.graph.release(base)
