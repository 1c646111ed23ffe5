"""A node as a file that all programs can open.  After block/export/fuse.c."""

import asyncio
import errno
import os
import stat
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from blockemu.backend import Backend
from blockemu.buffers import new_buffer
from blockemu.errors import QmpError
from blockemu.exports import fuse_wire as wire
from blockemu.exports.base import Export
from blockemu.exports.mounting import CannotMount, Tell, mount, unmount
from blockemu.extents import DATA
from blockemu.graph import Graph
from blockemu.host.sysfile import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from blockemu.os_errors import os_error
from blockemu.perm import Perm
from blockemu.permissions import try_set_perm
from blockemu.schema.exports import (
    BlockExportOptionsFuse,
    BlockExportType,
    FuseExportAllowOther,
)
from blockemu.walk import extents_above

LARGEST_READ: Final = 64 << 20

_WRITABLE: Final = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
Pieces = list[bytes | memoryview]
Do = Callable[["FuseExport", wire.Asked, memoryview], Awaitable[bytes | memoryview]]


class MountpointTaken(QmpError):
    """(path): we cover it already."""

    template = "There already is a FUSE export on '{}'"


class NoMountpoint(QmpError):
    """(path, why)."""

    template = "Failed to stat '{}': {}"


class NotAFile(QmpError):
    """(path): only a file can be covered."""

    template = "'{}' is not a regular file"


class NotMounted(QmpError):
    """Why is on standard error."""

    template = "Failed to mount FUSE session to export"


class FuseExport(Export):
    """A node as a file; requests are answered one after the other, as by QEMU."""

    type: ClassVar[BlockExportType] = BlockExportType.FUSE

    def __init__(self, graph: Graph, options: BlockExportOptionsFuse, backend: Backend) -> None:
        super().__init__(graph, options, backend)
        self.mountpoint = options.mountpoint
        self.growable = bool(options.growable)
        self._allow = options.allow_other or FuseExportAllowOther.AUTO
        self._others = False  # whether they see the file
        self._mode = stat.S_IFREG | stat.S_IRUSR | (stat.S_IWUSR if self.writable else 0)
        self._uid, self._gid = os.getuid(), os.getgid()
        self._fd = -1
        self._buffer = memoryview(bytearray(wire.BUFFER))
        self._serving: asyncio.Task[None] | None = None
        self._woken: asyncio.Future[None] | None = None
        self._ends = False

    def start(self, tell: Tell, taken: set[str]) -> None:
        """Mount it.

        Raises:
            QmpError: it cannot be, in QEMU's words.

        """
        if self.growable or self.writable:
            shared = self.backend.shared
            try_set_perm(self.backend, self.backend.perm | Perm.RESIZE, shared)
        if self.mountpoint in taken:  # before we ask the kernel, which would ask us
            raise MountpointTaken(self.mountpoint)
        try:
            mode = Path(self.mountpoint).stat().st_mode
        except OSError as e:
            raise NoMountpoint(self.mountpoint, os.strerror(e.errno or errno.EIO)) from e
        if not stat.S_ISREG(mode):
            raise NotAFile(self.mountpoint)
        self._mount(tell)
        self._serving = asyncio.get_running_loop().create_task(self._serve())

    def _mount(self, tell: Tell) -> None:
        allowed = {"on": [True], "off": [False], "auto": [True, False]}[self._allow]
        for others in allowed:
            options = f"max_read={LARGEST_READ},default_permissions"
            with suppress(CannotMount):
                options += ",allow_other" if others else ""
                self._fd = mount(self.mountpoint, options, tell)
                os.set_blocking(self._fd, False)
                self._others = others
                return
        raise NotMounted

    async def release(self) -> None:
        """Unmount it once the last request is answered, and let go of the node."""
        if self._serving is not None:
            self._ends = True
            self._wake()
            await self._serving
            unmount(self.mountpoint, self._fd)
        await super().release()

    # Requests

    async def _serve(self) -> None:
        """Answer the kernel until somebody unmounts the file."""
        while (length := await self._receive()) is not None:
            data = self._buffer[:length]
            self._send(await self._answer(wire.parse(data), data))
            await asyncio.sleep(0)  # others, too, have requests

    async def _receive(self) -> int | None:
        """Wait for a request; return how long it is, None if there will be no more."""
        loop = asyncio.get_running_loop()
        while not self._ends:
            try:
                return os.readv(self._fd, [self._buffer])
            except BlockingIOError:
                self._woken = loop.create_future()
                loop.add_reader(self._fd, self._wake)
                try:
                    await self._woken
                finally:
                    loop.remove_reader(self._fd)
            except OSError as e:
                if e.errno != errno.ENOENT:  # else one was taken back
                    break
        return None

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def _send(self, pieces: Pieces) -> None:
        with suppress(OSError):  # whoever asked has gone
            if pieces:
                os.writev(self._fd, pieces)

    async def _answer(self, asked: wire.Asked, data: memoryview) -> Pieces:
        if asked.what in wire.UNANSWERED:
            return []
        do = self._DO.get(asked.what, FuseExport._unknown)
        try:
            body = await do(self, asked, data)
        except OSError as e:
            return [wire.failure(asked.number, e.errno or errno.EIO)]
        except QmpError:
            return [wire.failure(asked.number, errno.EINVAL)]
        except Exception as e:  # whoever asked could not even be killed
            context = {"message": "a request by FUSE failed unexpectedly", "exception": e}
            asyncio.get_running_loop().call_exception_handler(context)
            return [wire.failure(asked.number, errno.EIO)]
        return [wire.answer(asked.number, len(body)), body] if body else [wire.answer(asked.number)]

    async def _unknown(self, asked: wire.Asked, data: memoryview) -> bytes:
        raise os_error(errno.ENOSYS)

    async def _init(self, asked: wire.Asked, data: memoryview) -> bytes:
        return wire.init(data)

    async def _nothing(self, asked: wire.Asked, data: memoryview) -> bytes:
        return b""

    async def _lookup(self, asked: wire.Asked, data: memoryview) -> bytes:
        raise os_error(errno.ENOENT)

    async def _open(self, asked: wire.Asked, data: memoryview) -> bytes:
        return wire.opened()

    async def _statfs(self, asked: wire.Asked, data: memoryview) -> bytes:
        return wire.file_system()

    async def _getattr(self, asked: wire.Asked, data: memoryview) -> bytes:
        node, length = self.backend.node, self.backend.fresh_length()
        allocated = node.allocated_size() or 0
        return wire.attributes(
            wire.Attributes(
                asked.file,
                length,
                -(-(allocated if allocated > 0 else length) // 512),
                int(time.time()),
                self._mode,
                self._uid,
                self._gid,
                max(node.limits.request_alignment, 1),
            )
        )

    async def _setattr(self, asked: wire.Asked, data: memoryview) -> bytes:
        wanted = wire.changes(data)
        known = wire.SIZE | wire.MODE | (wire.UID | wire.GID if self._others else 0)
        if wanted.which & ~known:
            raise os_error(errno.ENOTSUP)
        if wanted.which & wire.MODE:
            if not self._others and wanted.mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise os_error(errno.EPERM)
            if not self.writable and wanted.mode & _WRITABLE:
                raise os_error(errno.EROFS)
        if wanted.which & wire.SIZE:
            self._check_writable()
            await self._truncate(wanted.size)
        if wanted.which & wire.MODE:
            self._mode = wanted.mode | stat.S_IFREG
        if wanted.which & wire.UID:
            self._uid = wanted.uid
        if wanted.which & wire.GID:
            self._gid = wanted.gid
        return await self._getattr(asked, data)

    async def _read(self, asked: wire.Asked, data: memoryview) -> memoryview:
        offset, size = wire.extent(data)
        if size > LARGEST_READ:
            raise os_error(errno.EINVAL)
        size = max(min(size, self.backend.fresh_length() - offset), 0)
        buffer = new_buffer(size)
        await self.backend.pread(offset, buffer)
        return buffer

    async def _write(self, asked: wire.Asked, data: memoryview) -> bytes:
        offset, size = wire.extent(data)
        self._check_writable()
        length = self.backend.fresh_length()
        if offset + size > length:
            if self.growable:
                await self._truncate(offset + size)
            else:
                size = length - offset
        if size < 0:
            raise os_error(errno.EIO)
        await self.backend.pwrite(offset, data[wire.WRITE_HEAD : wire.WRITE_HEAD + size])
        return wire.written(size)

    async def _flush(self, asked: wire.Asked, data: memoryview) -> bytes:
        await self.backend.flush()
        return b""

    async def _fallocate(self, asked: wire.Asked, data: memoryview) -> bytes:
        mode, offset, length = wire.allocation(data)
        self._check_writable()
        end = self.backend.fresh_length()
        if mode & KEEP_SIZE:
            length = min(length, end - offset)
            if length < 0:
                raise os_error(errno.EIO)
        if not mode:
            if offset < end:
                raise os_error(errno.EOPNOTSUPP)
            if offset > end:
                await self._truncate(offset)
            await self._truncate(offset + length, prealloc="falloc")
        elif mode & PUNCH_HOLE:
            if not mode & KEEP_SIZE:
                raise os_error(errno.EINVAL)
            await self.backend.discard(offset, length)
        elif mode & ZERO_RANGE:
            if not mode & KEEP_SIZE and offset + length > end:
                await self._truncate(offset + length, zero=False)
            await self.backend.write_zeroes(offset, length)
        else:
            raise os_error(errno.EOPNOTSUPP)
        return b""

    async def _lseek(self, asked: wire.Asked, data: memoryview) -> bytes:
        offset, whence = wire.seek(data)
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise os_error(errno.EINVAL)
        length = self.backend.fresh_length()
        if offset < length:
            found = await self._find(offset, length - offset, data=whence == os.SEEK_DATA)
            if found is not None:
                return wire.found(found)
        if offset > length or whence == os.SEEK_DATA:
            raise os_error(errno.ENXIO)
        return wire.found(length)

    async def _find(self, offset: int, length: int, *, data: bool) -> int | None:
        """Return where there is data, or none, from an offset on."""
        await self.backend.enter()
        try:
            async with aclosing(extents_above(self.backend, offset, length)) as batches:
                async for batch in batches:
                    fits = np.flatnonzero((batch.status & DATA != 0) == data)
                    if len(fits):
                        return int(batch.start[fits[0]])
        finally:
            self.backend.leave()
        return None

    # Helpers

    def _check_writable(self) -> None:
        if not self.writable:
            raise os_error(errno.EACCES)

    async def _truncate(self, size: int, *, prealloc: str = "off", zero: bool = True) -> None:
        await self.backend.enter()
        try:
            await self.backend.truncate(size, exact=True, prealloc=prealloc, zero=zero)
        finally:
            self.backend.leave()

    _DO: "Final[dict[int, Do]]" = {
        wire.INIT: _init,
        wire.DESTROY: _nothing,
        wire.LOOKUP: _lookup,
        wire.GETATTR: _getattr,
        wire.SETATTR: _setattr,
        wire.OPEN: _open,
        wire.RELEASE: _nothing,
        wire.READ: _read,
        wire.WRITE: _write,
        wire.STATFS: _statfs,
        wire.FSYNC: _flush,
        wire.FLUSH: _flush,
        wire.FALLOCATE: _fallocate,
        wire.LSEEK: _lseek,
    }
