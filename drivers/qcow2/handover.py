"""Leaving an image, at the end or to another machine, and taking it back."""

import errno
import os
import sys
from typing import TYPE_CHECKING

from blockemu.errors import QmpError, Wrapped
from blockemu.images.errors import FormatError

if TYPE_CHECKING:
    from blockemu.drivers.qcow2 import Qcow2


async def put_away(node: "Qcow2") -> int:
    """Store bitmaps and write tables back (qcow2_inactivate).

    Returns the errno of what failed, 0 if nothing did; the user has been told.
    """
    if node.image.broken:
        return 0
    code = 0
    try:
        if node.image.bitmaps or node.bitmap_set:
            await node.bitmaps_stored.store(release=True)
    except QmpError as e:
        code = errno.EINVAL
        text = f"Lost persistent bitmaps during inactivation of node '{node.title}': {e}"
        print(text, file=sys.stderr, flush=True)
    if not node.image.writable:
        return code
    # QEMU has two caches, and empties them in turn.  Where it does not know where metadata is, it
    # refuses to write, which concerns a cache only if something in it has changed.
    refused = node.image.overlap.unusable and not node.image.mapping.dirty
    tables = () if refused else ("L2 table",)
    for cache in (*tables, "refcount block"):
        try:
            await node.writeback.leave()
            return code
        except OSError as e:
            code = e.errno or errno.EIO
            node.services.report(f"Failed to flush the {cache} cache: {os.strerror(code)}")
    return code


async def take_back(node: "Qcow2") -> None:
    """Open an image anew; its data file stays open (qcow2_co_invalidate_cache).

    Raises:
        Wrapped: that failed, and the node is of no use any more.

    """
    backing, encryption = node.backing_file, node.image.encryption
    node.cleaner.stop()
    try:
        await node.load()
    except (QmpError, FormatError) as e:
        node.image.broken = True
        raise Wrapped("Could not reopen qcow2 layer", e, hint=e.hint) from e
    except OSError as e:
        node.image.broken = True
        raise Wrapped("Could not reopen qcow2 layer", os.strerror(e.errno or errno.EIO)) from e
    node.image.encryption = encryption
    if node.backing_file != backing:
        node.auto_backing = node.backing_file
    node.changed()
