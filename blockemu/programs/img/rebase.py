"""``rebase``: give an image another backing file, without a change of what it holds or with."""

import errno
import os
from typing import Any

import numpy as np

from blockemu import filenames
from blockemu.backend import Backend
from blockemu.buffers import new_buffer
from blockemu.cache_modes import CACHE_MODES, CacheMode
from blockemu.chain_map import unfiltered
from blockemu.edge import Edge
from blockemu.errors import QmpError
from blockemu.extents import ALLOCATED
from blockemu.node import Node
from blockemu.paths import combine, has_protocol, is_absolute
from blockemu.perm import Perm
from blockemu.programs.img.arguments import IMAGE, Syntax
from blockemu.programs.img.program import Mode, Program
from blockemu.programs.img.progress import Bar
from blockemu.programs.img.refusals import (
    BadCache,
    BadSourceCache,
    Failed,
    Misused,
    OneImageExpected,
    Refusal,
)
from blockemu.records import record
from blockemu.walk import status_above

SYNTAX = Syntax("hf:F:b:upt:T:qU", IMAGE | {"force-share": "U"})
BUFFER = 2 << 20  # bytes looked at in one go
SECTOR = 512


class BackingMissing(Misused):
    """It is not said what to base the image on."""

    template = "Must specify backing file (-b) or use unsafe mode (-u)"


class BadFormat(Refusal):
    """(name)."""

    template = "Invalid format name: '{}'"


class StatusFailed(Refusal):
    """(why)."""

    template = "error while reading image metadata: {}"


class ReadFailed(Refusal):
    """(which)."""

    template = "error while reading from {} backing file"


class WriteFailed(Refusal):
    """(why)."""

    template = "Error while writing to COW image: {}"


class NotChanged(Refusal):
    """(name, why)."""

    template = "Could not change the backing file to '{}': {}"


async def run(program: Program, argv: list[str]) -> int:
    """Copy what differs between the backing files, unless ``-u``; then name the new one."""
    given, names = program.given(SYNTAX, argv)
    program.quiet = "q" in given
    if len(names) != 1:
        raise OneImageExpected
    unsafe = "u" in given
    if not unsafe and "b" not in given:
        raise BackingMissing
    bar = program.bar(2.0, shown="p" in given)
    bar.add(0)
    try:
        await _rebase(program, names[0], given, bar)
    finally:
        bar.end()
    return 0


async def _rebase(program: Program, name: str, given: dict[str, str], bar: Bar) -> None:
    unsafe, base, fmt = "u" in given, given.get("b"), given.get("F")
    cache, source_cache = given.get("t", "writeback"), given.get("T", "writeback")
    if cache not in CACHE_MODES:
        raise BadCache(cache)
    if source_cache not in CACHE_MODES:
        raise BadSourceCache(source_cache)
    mode = Mode(write=True, no_backing=unsafe, cache=CACHE_MODES[cache])
    image = await program.open(name, given.get("f"), mode, image_opts="image-opts" in given)
    if fmt is not None and fmt not in program.emu.opener.drivers:
        raise BadFormat(fmt)
    top = unfiltered(image).node
    if not unsafe:
        work = _Rebase(program, image, top, bar)
        await work.open(base or "", fmt, CACHE_MODES[source_cache], share="U" in given)
        await work.run()
    try:
        await _change(top, base, fmt if base else None)
    finally:
        bar.set(100)


async def _change(node: Node[Any], base: str | None, fmt: str | None) -> None:
    """Name the backing file in the image's header (bdrv_change_backing_file, block.c)."""
    code, shown, base = 0, "(null)" if base is None else base, base or None
    try:
        if base is not None and fmt is None:
            code = errno.EINVAL
        elif not node.supports_backing:
            code = errno.ENOTSUP
        else:
            await node.change_backing_file(base, fmt)
    except NotImplementedError:
        code = errno.ENOTSUP
    except OSError as e:
        code = e.errno or errno.EIO
    if code == errno.ENOSPC:
        raise NotChanged(shown, "No space left in the file header")
    if code == errno.EINVAL and base is not None and fmt is None:
        raise NotChanged(shown, "backing format must be specified")
    if code:
        raise NotChanged(shown, os.strerror(code))


@record
class _Rebase:
    """An image on its way from one backing file to another, both of which are read."""

    program: Program
    image: Backend
    top: Node[Any]
    bar: Bar
    old: Backend | None = None
    new: Backend | None = None
    new_in_chain: bool = False

    async def open(self, base: str, fmt: str | None, cache: CacheMode, *, share: bool) -> None:
        """Get at the old and at the new backing file."""
        backing = self.top.backing
        if backing is not None:
            self.old = self._reuse(backing.node)
        if not base:
            return
        node = self.image.node
        filenames.refresh(node)
        overlay = node.exact_filename or node.full_filename
        name = base
        if not has_protocol(base) and not is_absolute(base):
            if overlay.startswith(filenames.JSON):
                why = f"Cannot use relative backing file names for '{overlay}'"
                raise Failed("Could not resolve backing filename", why)
            name = combine(overlay, base)
        found = self._in_chain(name)
        if found is not None:
            self.new, self.new_in_chain = self._reuse(found), True
            return
        options: dict[str, Any] = {"driver": fmt} if fmt is not None else {}
        mode = Mode(force_share=share, cache=cache)
        if share:
            options["force-share"] = True
        try:
            self.new = await self.program.open_options(name, options, mode)
        except QmpError as e:
            what = f"Could not open new backing file '{base}'"
            raise Failed(what, e, hint=e.hint) from e

    def _reuse(self, node: Node[Any]) -> Backend:
        backend = Backend(perm=Perm.CONSISTENT_READ)
        self.program.emu.graph.insert(backend, node)
        self.program.keep(backend)
        return backend

    def _in_chain(self, name: str) -> Node[Any] | None:
        """Return the image below with this name (after bdrv_find_backing_image, block.c)."""
        node: Node[Any] | None = self.top
        while node is not None and node.backing is not None:
            node = unfiltered(node.backing).node
            filenames.refresh(node)
            wanted = {node.full_filename, node.exact_filename} - {""}
            if name in wanted or os.path.realpath(name) in map(os.path.realpath, wanted):
                return node
        return None

    async def run(self) -> None:
        """Copy into the image what would look different."""
        size = self.image.length
        buffers = new_buffer(BUFFER), new_buffer(BUFFER)
        at = 0
        share = 100.0 / (size // min(size, BUFFER)) if size else 0.0
        while at < size:
            length, ours = await self._open_range(at, min(BUFFER, size - at))
            if ours:
                length = await self._copy(at, length, buffers)
                self.bar.add(share)
            at += length

    async def _open_range(self, at: int, length: int) -> tuple[int, bool]:
        """Return how much is alike, and whether it is the backing files' affair."""
        try:
            status, length = await status_above(
                unfiltered(self.image), at, length, top_only=True, mask=ALLOCATED
            )
            if status & ALLOCATED:
                return length, False
            if self.new_in_chain:
                changed, length = await self._changed_below(at, length)
                return length, changed
        except OSError as e:
            raise StatusFailed(os.strerror(e.errno or errno.EIO)) from e
        return length, True

    async def _changed_below(self, at: int, length: int) -> tuple[bool, int]:
        """Tell whether an image above the new backing file has something there."""
        edge: Edge | None = self.top.backing
        assert self.new is not None
        while edge is not None:
            edge = unfiltered(edge)
            if edge.node is self.new.node:
                return False, length
            if at >= edge.length:
                return True, length
            length = min(length, edge.length - at)
            status, length = await status_above(edge, at, length, top_only=True, mask=ALLOCATED)
            if status & ALLOCATED:
                return True, length
            edge = edge.node.backing
        return False, length

    async def _copy(self, at: int, length: int, buffers: tuple[memoryview, memoryview]) -> int:
        """Copy from the old backing file where the new one differs; return how far that went."""
        ends = [0 if b is None else b.length for b in (self.old, self.new)]
        for end in ends:
            if at < end:
                length = min(length, end - at)
        views = [buffer[:length] for buffer in buffers]
        sides = zip(views, (self.old, self.new), ends, ("old", "new"), strict=True)
        for view, backend, end, which in sides:
            if backend is None or at >= end:
                np.frombuffer(view, np.uint8).fill(0)
                continue
            try:
                await backend.pread(at, view)
            except OSError as e:
                raise ReadFailed(which) from e
        try:
            await self._write(at, views[0], views[1], zero=at >= ends[0])
        except OSError as e:
            raise WriteFailed(os.strerror(e.errno or errno.EIO)) from e
        return length

    async def _write(self, at: int, old: memoryview, new: memoryview, *, zero: bool) -> None:
        words = [np.frombuffer(view, np.uint64).reshape(-1, SECTOR // 8) for view in (old, new)]
        differs = np.concatenate(([False], (words[0] != words[1]).any(axis=1), [False]))
        turns = np.flatnonzero(differs[1:] != differs[:-1]) * SECTOR
        for start, stop in turns.reshape(-1, 2).tolist():
            if zero:
                await self.image.write_zeroes(at + start, stop - start)
            else:
                await self.image.pwrite(at + start, old[start:stop])
