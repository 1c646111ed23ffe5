"""The commit without a job: one image into its backing file, while all else stands still.

What HMP's ``commit`` does; after bdrv_commit, block/commit.c.
"""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from blockemu.backend import Backend, drained
from blockemu.chain import cow_child, skip_filters
from blockemu.emptying import CannotEmpty, make_empty
from blockemu.errors import QmpError
from blockemu.extents import ALLOCATED
from blockemu.jobs.chain_settings import AHEAD
from blockemu.jobs.commit import copy_range
from blockemu.jobs.tops import CommitTop, new_top
from blockemu.node import Node
from blockemu.os_errors import os_error
from blockemu.perm import Perm
from blockemu.reopen import set_read_only
from blockemu.walk import status_above

if TYPE_CHECKING:
    from blockemu.emulator import Emulator

STEP: Final = 64 << 10  # bytes read or written at once, where that can be seen


async def commit_all(emu: "Emulator", tell: Callable[[str], None]) -> None:
    """Commit each drive that stands on a backing file; the first error ends it."""
    for backend in list(emu.graph.backends.values()):
        if backend.inserted is None:
            continue
        node = skip_filters(backend.inserted)
        if cow_child(node) is not None:
            await commit_now(emu, node, tell)


async def commit_now(emu: "Emulator", node: Node[Any], tell: Callable[[str], None]) -> None:
    """Merge what an image has into its backing file, and empty it.

    Raises:
        OSError: with the errno that QEMU has for it; ``tell`` hears what it says besides.

    """
    graph = emu.graph
    if node.backing is None or node.is_filter:
        raise os_error(errno.ENOTSUP)
    base = node.backing.node
    try:
        graph.check_unblocked(node, "commit-source")
        graph.check_unblocked(base, "commit-target")
    except QmpError as e:
        raise os_error(errno.EBUSY) from e
    read_only = base.flags.read_only
    if read_only:
        try:
            await set_read_only(graph, base, False)
        except (QmpError, OSError) as e:
            raise os_error(errno.EACCES) from e
    base.holds += 1
    try:
        await _commit(emu, node, base)
    except QmpError as e:
        tell(f"{e}\n")
        code = e.errno if isinstance(e, OSError) else None
        raise OSError(code or errno.EPERM, os.strerror(code or errno.EPERM)) from e
    finally:
        base.holds -= 1
        if read_only:
            with suppress(QmpError, OSError):
                await set_read_only(graph, base, True)


async def _commit(emu: "Emulator", node: Node[Any], base: Node[Any]) -> None:
    graph = emu.graph
    source = Backend(perm=Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED)
    target = Backend(perm=Perm.WRITE | Perm.RESIZE)
    source.queues = target.queues = False
    top = new_top(emu, CommitTop, None, read_only=False)
    try:
        async with drained(node):
            graph.insert(source, node)
            # What is above the base must not mind that it is written to: the filter sees to that.
            await graph.set_backing(top, base)
            await graph.set_backing(node, top)
            try:
                graph.insert(target, base)
                await _copy(emu, source, target)
                with suppress(CannotEmpty):
                    await make_empty(source)
                for each in (source, target):
                    with suppress(OSError):
                        await each.flush()
            finally:
                if target.inserted is not None:
                    await graph.remove(target)
                await graph.set_backing(node, base)
    finally:
        if source.inserted is not None:
            await graph.remove(source)
        top.holds -= 1
        await graph.release(top)


async def _copy(emu: "Emulator", source: Backend, target: Backend) -> None:
    """Copy what the image itself has, and let the base be at least as large."""
    length = source.length
    if length > target.length:
        await target.truncate(length, exact=False)
    plain = source.route.readable_in_files and target.route.writable_in_files
    at = 0
    while at < length:
        most = min(AHEAD if plain else STEP, length - at)
        status, size = await status_above(source, at, most, top_only=True, mask=ALLOCATED)
        if status & ALLOCATED:
            await copy_range(source, target, at, size, emu.pool if plain else None)
        at += size
