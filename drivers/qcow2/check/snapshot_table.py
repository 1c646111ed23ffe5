"""The table of internal snapshots, read with care: a check must find what is wrong with it.

After qcow2_check_read_snapshot_table, block/qcow2-snapshot.c.
"""

import os
import struct
from typing import Final

from blockemu.check import CheckResult, Fix
from blockemu.drivers.qcow2.check.storage import Storage, Structure
from blockemu.images.errors import FormatError
from blockemu.images.qcow2 import constants as c
from blockemu.images.qcow2 import errors
from blockemu.images.qcow2.header import SNAPSHOTS_AT, check_table
from blockemu.images.qcow2.snapshots import SnapshotHead, make_snapshot
from blockemu.records import replace

WINDOW: Final = 65536
KNOWN_EXTRA: Final = 24
NEEDED_EXTRA: Final = 16  # bytes of extra data that version 3 asks for
_POINTER = struct.Struct(">IQ")


async def check_snapshot_table(storage: Storage, structure: Structure, fix: int) -> CheckResult:
    """Read the table into ``structure``, whatever the node knew of it.

    Entries that are found too long or too short are corruptions; they are repaired by writing the
    table anew, which the caller must do once refcounts are right.

    Raises:
        OSError: it could not be read.

    """
    result = CheckResult()
    try:
        count, offset = _POINTER.unpack(await storage.read(SNAPSHOTS_AT, _POINTER.size))
    except OSError as e:
        result.check_errors += 1
        why = os.strerror(e.errno or 0)
        what = "ERROR failed to read the snapshot table pointer from the image header"
        storage.say(f"{what}: {why}")
        raise
    cut = 0
    if count > c.MAX_SNAPSHOTS and fix & Fix.ERRORS:
        cut = count - c.MAX_SNAPSHOTS
        storage.say(f"Discarding {cut} overhanging snapshots")
        count = c.MAX_SNAPSHOTS
    try:
        check_table(
            structure.geometry, offset, count, SnapshotHead.CODEC.size,
            SnapshotHead.CODEC.size * c.MAX_SNAPSHOTS, "snapshot table",
        )  # fmt: skip
    except errors.TableTooLarge as e:
        storage.report(f"ERROR {e}")
        storage.say(
            f"You can force-remove all {count - c.MAX_SNAPSHOTS} overhanging snapshots with "
            "qemu-img check -r all"
        )
        raise OSError(27, os.strerror(27)) from e
    except FormatError as e:
        storage.report(f"ERROR {e}")
        raise OSError(22, os.strerror(22)) from e
    table = _Table(storage, structure, bool(fix & Fix.ERRORS))
    try:
        await table.read(offset, count)
    except FormatError as e:
        storage.report(f"ERROR failed to read the snapshot table: {e}\n{e.hint}".rstrip("\n"))
        raise OSError(27, os.strerror(27)) from e
    except OSError as e:
        why = os.strerror(e.errno or 0)
        what = "ERROR failed to read the snapshot table: Failed to read snapshot table"
        storage.report(f"{what}: {why}")
        raise
    cut += table.cut
    result.corruptions += table.dropped
    if cut:
        left = len(structure.snapshots)
        await storage.write(SNAPSHOTS_AT, struct.pack(">I", left))
        result.corruptions_fixed += cut
    if structure.geometry.version >= 3:
        verb = "Repairing" if fix & Fix.ERRORS else "ERROR"
        for i, snapshot in enumerate(structure.snapshots):
            if snapshot.extra_size < NEEDED_EXTRA:
                result.corruptions += 1
                storage.say(f"{verb} snapshot table entry {i} is incomplete")
    return result


class _Table:
    """Reads the table; ``cut``: snapshots left out; ``dropped``: those that lost extra data."""

    def __init__(self, storage: Storage, structure: Structure, repair: bool) -> None:
        self.storage = storage
        self.structure = structure
        self.repair = repair
        self.cut = 0
        self.dropped = 0
        self._window, self._window_at = memoryview(b""), 0

    async def read(self, start: int, count: int) -> None:
        """Read ``count`` entries."""
        structure, at, length = self.structure, start, 0
        structure.snapshots, structure.snapshots_offset = [], start
        structure.snapshots_size = 0
        for index in range(count):
            before = at
            at, length = (at + 7) & ~7, (length + 7) & ~7
            head = SnapshotHead.unpack(await self._get(at, SnapshotHead.CODEC.size))
            at += SnapshotHead.CODEC.size
            kept = min(head.extra_size, c.MAX_SNAPSHOT_EXTRA)
            if kept < head.extra_size:
                if not self.repair:
                    raise errors.SnapshotExtraTooLarge(index)
                self.storage.say(
                    f"Discarding too much extra metadata in snapshot table entry {index} "
                    f"({head.extra_size} > {c.MAX_SNAPSHOT_EXTRA})"
                )
                self.dropped += 1
            extra = await self._get(at, kept)
            at += head.extra_size
            names = await self._get(at, head.id_size + head.name_size)
            at += len(names)
            length += SnapshotHead.CODEC.size + kept + len(names)
            if length > c.MAX_SNAPSHOT_BYTES or at - start > (1 << 31) - 1:
                self._too_big(count - index)
                at = before
                break
            structure.snapshots.append(
                replace(make_snapshot(head, extra, names, structure.length), extra_size=kept)
            )
        structure.snapshots_size = at - start if count else 0

    def _too_big(self, left: int) -> None:
        if not self.repair:
            raise errors.SnapshotTableTooBig(left)
        self.storage.say(f"Discarding {left} overhanging snapshots (snapshot table is too big)")
        self.cut += left

    async def _get(self, at: int, length: int) -> bytes:
        """Return some bytes; they are read in larger pieces."""
        lead = at - self._window_at
        if lead < 0 or lead + length > len(self._window):
            self._window, self._window_at = await self.storage.read(at, max(length, WINDOW)), at
            lead = 0
        return bytes(self._window[lead : lead + length])
