"""The disks that every driver's contract is tried on, and a guest that uses them."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import planned

from blockemu.backend import Backend
from blockemu.emulator import Emulator
from blockemu.extents import Extents
from blockemu.images.qcow2.new import new_image
from blockemu.images.vdi import BLOCK, UNALLOCATED, new_header
from blockemu.node import Node
from blockemu.perm import Perm
from blockemu.walk import extents_above

SIZE = 1 << 20
Options = dict[str, Any]


@dataclass(frozen=True)
class Disk:
    """A way to make a disk of SIZE bytes in a folder: what its files hold, how it is opened."""

    name: str
    options: Callable[[Path], Options]
    forgets: bool = False  # what is written is gone: a null device
    compares: bool = False  # of several copies: writes that overlap may end differently in each
    pattern: int = 0  # what it is filled with at first

    def __str__(self) -> str:
        return self.name


def _file(folder: Path, size: int = SIZE, **more: Any) -> Options:
    path = folder / "disk.raw"
    if not path.exists():
        path.touch()
        os.truncate(path, size)
    return {"driver": "file", "filename": str(path), "discard": "unmap", **more}


def _qcow2(folder: Path, backing: bytes | None = None, **header: Any) -> Options:
    path = folder / "disk.qcow2"
    if backing is not None:
        (folder / "base.raw").write_bytes(backing)
        header |= {"backing_file": str(folder / "base.raw"), "backing_format": "raw"}
    if "data_file" in header:
        (folder / header["data_file"]).touch()
        os.truncate(folder / header["data_file"], SIZE)
        header["data_file"] = str(folder / header["data_file"])
    if not path.exists():
        path.write_bytes(new_image(SIZE, **header))
    return {
        "driver": "qcow2",
        "discard": "unmap",
        "file": {"driver": "file", "filename": str(path), "discard": "unmap"},
    }


def _vdi(folder: Path, *, static: bool = False) -> Options:
    path = folder / "disk.vdi"
    if not path.exists():
        header = new_header(SIZE, static=static, uuid=bytes(16), snapshot_uuid=bytes(16))
        places = range(header.blocks_in_image) if static else [UNALLOCATED] * header.blocks_in_image
        entries = struct.pack(f"<{len(places)}I", *places).ljust(header.map_bytes, b"\0")
        path.write_bytes(header.pack() + entries)
        if static:
            os.truncate(path, header.offset_data + header.blocks_in_image * BLOCK)
    return {"driver": "vdi", "discard": "unmap", "file": _file(folder) | {"filename": str(path)}}


def _raw(file: Options, **more: Any) -> Options:
    return {"driver": "raw", "discard": "unmap", "file": file, **more}


def _null(driver: str, **more: Any) -> Options:
    return {"driver": driver, "size": SIZE, "discard": "unmap", **more}


def _filtered(folder: Path, driver: str, **more: Any) -> Options:
    return {"driver": driver, "discard": "unmap", "file": _file(folder), **more}


def _named(folder: Path, name: str) -> Options:
    (folder / name).touch()
    os.truncate(folder / name, SIZE)
    return {"driver": "file", "filename": str(folder / name), "discard": "unmap"}


def _quorum(folder: Path, threshold: int = 2, **more: Any) -> Options:
    children = [_raw(_named(folder, name)) for name in ("a.raw", "b.raw")] + [_qcow2(folder)]
    return {"driver": "quorum", "vote-threshold": threshold, "children": children, **more}


def _blkverify(folder: Path) -> Options:
    return {"driver": "blkverify", "raw": _file(folder), "test": _qcow2(folder)}


def _preallocated(folder: Path) -> Options:
    qcow2 = _qcow2(folder)
    return qcow2 | {"file": {"driver": "preallocate", "discard": "unmap", "file": qcow2["file"]}}


DISKS = [
    Disk("null-co", lambda f: _null("null-co"), forgets=True),
    Disk("null-co-zeroes", lambda f: _null("null-co", **{"read-zeroes": True}), forgets=True),
    Disk("null-aio", lambda f: _null("null-aio"), forgets=True),
    Disk("file", _file),
    Disk("file-direct", lambda f: _file(f, cache={"direct": True})),
    Disk("raw", lambda f: _raw(_file(f))),
    Disk("raw-guessed", lambda f: {"discard": "unmap", "file": _file(f)}),
    Disk("raw-direct", lambda f: _raw(_file(f, cache={"direct": True}))),
    Disk("raw-window", lambda f: _raw(_file(f, 2 * SIZE), offset=4608, size=SIZE)),
    Disk("raw-null", lambda f: _raw(_null("null-co")), forgets=True),
    Disk("raw-qcow2", lambda f: _raw(_qcow2(f, bytes([7]) * SIZE)), pattern=7),
    Disk("quorum", _quorum, compares=True),
    Disk("quorum-fifo", lambda f: _quorum(f, 1, **{"read-pattern": "fifo"})),
    Disk("blkverify", _blkverify, compares=True),
    Disk("preallocate", lambda f: _filtered(f, "preallocate")),
    Disk("preallocate-qcow2", _preallocated),
    Disk("blklogwrites", lambda f: _filtered(f, "blklogwrites", log=_named(f, "log"))),
    Disk("cbw", lambda f: _filtered(f, "copy-before-write", target=_named(f, "old.raw"))),
    Disk("vdi", _vdi),
    Disk("vdi-static", lambda f: _vdi(f, static=True)),
    Disk("qcow2", _qcow2),
    Disk("qcow2-v2", lambda f: _qcow2(f, version=2)),
    Disk("qcow2-small-clusters", lambda f: _qcow2(f, cluster_bits=9)),
    Disk("qcow2-extended", lambda f: _qcow2(f, extended_l2=True)),
    Disk("qcow2-backed", lambda f: _qcow2(f, bytes([7]) * SIZE), pattern=7),
    Disk("qcow2-data-file", lambda f: _qcow2(f, data_file="disk.data")),
]


class Guest:
    """An emulator with one disk, and a root through which requests go."""

    def __init__(self, disk: Disk, folder: Path, *, plans: bool = True) -> None:
        self.disk = disk
        self.folder = folder
        self.emulator = Emulator()
        self.backend = Backend("guest", Perm.ALL, Perm.ALL, plans=plans)

    async def __aenter__(self) -> Guest:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.emulator.graph.remove(self.backend)
        await self.emulator.close()

    async def open(self) -> None:
        """Open the disk and sit on it."""
        node = await self.emulator.opener.open(self.disk.options(self.folder))
        self.emulator.graph.insert(self.backend, node)

    async def open_anew(self) -> None:
        """Close the disk and open it again."""
        await self.emulator.graph.remove(self.backend)
        await self.open()

    @property
    def node(self) -> Node[Any]:
        return self.backend.node

    async def read(self, offset: int, length: int) -> bytes:
        """Read as a guest; the buffer held something before."""
        buf = bytearray(b"\xa5" * length)
        await self.backend.pread(offset, buf)
        return bytes(buf)

    async def write(self, offset: int, data: bytes) -> None:
        """Write as a guest, by a plan if there is one."""
        await planned.write(self.backend, offset, data)

    async def extents(self, offset: int = 0, length: int = SIZE) -> list[Extents]:
        """Return what the disk's chain says of a range, as it came."""
        return [batch async for batch in extents_above(self.backend, offset, length)]
