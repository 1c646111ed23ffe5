"""The table of internal snapshots."""

import struct

from blockemu.images.layout import U16, U32, U64, Layout
from blockemu.images.qcow2 import constants as c
from blockemu.images.qcow2 import errors
from blockemu.records import record

_EXTRA = struct.Struct(">QQQ")


class SnapshotHead(Layout):
    """The fixed part of an entry."""

    l1_table_offset: U64 = 0
    l1_size: U32 = 0
    id_size: U16 = 0
    name_size: U16 = 0
    date_sec: U32 = 0
    date_nsec: U32 = 0
    vm_clock_nsec: U64 = 0
    vm_state_size: U32 = 0
    extra_size: U32 = 0


@record(frozen=True)
class Snapshot:
    """One internal snapshot; sizes in bytes, ``icount`` None if it was not recorded.

    ``extra_size``: bytes of extra data that its entry had when it was read.
    """

    id: str
    name: str
    l1_table_offset: int
    l1_size: int
    date_sec: int
    date_nsec: int
    vm_clock_nsec: int
    vm_state_size: int
    disk_size: int
    icount: int | None
    unknown_extra: bytes = b""
    extra_size: int = _EXTRA.size


class NeedMoreError(Exception):
    """The table goes on beyond the bytes given."""


def parse_snapshots(
    data: bytes | memoryview, count: int, disk_size: int
) -> tuple[list[Snapshot], int]:
    """Read ``count`` snapshots; ``disk_size`` is what old entries without one are taken to have.

    Returns them and the table's size in bytes.

    Raises:
        FormatError: the table is larger than it may be.
        NeedMoreError: give more bytes.

    """
    table: list[Snapshot] = []
    at = 0
    for index in range(count):
        at = (at + 7) & ~7
        head = SnapshotHead.unpack(_part(data, at, SnapshotHead.CODEC.size))
        at += SnapshotHead.CODEC.size
        if head.extra_size > c.MAX_SNAPSHOT_EXTRA:
            raise errors.SnapshotExtraTooLarge(index)
        extra = _part(data, at, head.extra_size)
        at += head.extra_size
        names = _part(data, at, head.id_size + head.name_size)
        at += len(names)
        table.append(make_snapshot(head, extra, names, disk_size))
        if at > c.MAX_SNAPSHOT_BYTES:
            raise errors.SnapshotTableTooBig(count - index)
    return table, at


def _part(data: bytes | memoryview, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise NeedMoreError
    return bytes(data[at : at + length])


def make_snapshot(head: SnapshotHead, extra: bytes, names: bytes, disk_size: int) -> Snapshot:
    """Return a snapshot of its entry's parts; ``extra`` may have been cut off, or be too short."""
    state, size, icount = _EXTRA.unpack(extra[:24].ljust(24, b"\0"))
    return Snapshot(
        id=_string(names[: head.id_size]),
        name=_string(names[head.id_size :]),
        l1_table_offset=head.l1_table_offset,
        l1_size=head.l1_size,
        date_sec=head.date_sec,
        date_nsec=head.date_nsec,
        vm_clock_nsec=head.vm_clock_nsec,
        vm_state_size=state if len(extra) >= 8 else head.vm_state_size,
        disk_size=size if len(extra) >= 16 else disk_size,
        icount=icount if len(extra) >= 24 and icount != (1 << 64) - 1 else None,
        unknown_extra=extra[24:],
        extra_size=len(extra),
    )


def pack_snapshots(table: list[Snapshot]) -> bytes:
    """Return the bytes of a table (after qcow2_write_snapshots).

    Raises:
        FormatError: it is larger than it may be.

    """
    parts: list[bytes] = []
    size = 0
    for s in table:
        padding = bytes(-size % 8)
        ident, name = (text.encode(errors="surrogateescape") for text in (s.id, s.name))
        icount = (1 << 64) - 1 if s.icount is None else s.icount
        extra = _EXTRA.pack(s.vm_state_size, s.disk_size, icount) + s.unknown_extra
        head = SnapshotHead(
            l1_table_offset=s.l1_table_offset,
            l1_size=s.l1_size,
            id_size=len(ident),
            name_size=len(name),
            date_sec=s.date_sec,
            date_nsec=s.date_nsec,
            vm_clock_nsec=s.vm_clock_nsec,
            vm_state_size=s.vm_state_size if s.vm_state_size >> 32 == 0 else 0,
            extra_size=len(extra),
        )
        parts += (padding, head.pack(), extra, ident, name)
        size += sum(map(len, parts[-5:]))
        if size > c.MAX_SNAPSHOT_BYTES:
            raise errors.SnapshotTableTooBig
    return b"".join(parts)


def _string(data: bytes) -> str:
    return data.split(b"\0")[0].decode(errors="surrogateescape")
