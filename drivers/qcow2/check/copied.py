"""Copied flags: set where there is one reference, nowhere else (after check_oflag_copied)."""

import os
import struct
from typing import Final

import numpy as np

from blockemu.check import CheckResult, Fix
from blockemu.drivers.qcow2.check.on_disk import OnDisk
from blockemu.drivers.qcow2.check.storage import Storage, Structure
from blockemu.images.qcow2.constants import COMPRESSED, COPIED, OFFSET, READS_ZERO
from blockemu.images.qcow2.tables import Table

_OFFSET, _COPIED, _COMPRESSED = np.uint64(OFFSET), np.uint64(COPIED), np.uint64(COMPRESSED)
_ACTIVE_L1: Final = frozenset({"active L1 table"})
_ACTIVE_L2: Final = frozenset({"active L2 table"})


class CopiedFlags:
    """Checks the flags in the active L1 table and its L2 tables."""

    def __init__(
        self, storage: Storage, structure: Structure, disk: OnDisk, result: CheckResult, fix: int
    ) -> None:
        self.storage = storage
        self.structure = structure
        self.geometry = structure.geometry
        self.disk = disk
        self.result = result
        clean = not (result.check_errors or result.corruptions or result.leaks)
        self.repair = bool(fix & Fix.ERRORS or (fix & Fix.LEAKS and clean))
        self.verb = "Repairing" if self.repair else "ERROR"

    async def check(self) -> None:
        """Look at all flags.

        Raises:
            OSError: a table cannot be read or written.

        """
        bits = self.geometry.cluster_bits
        at = np.flatnonzero(self.structure.l1 & _OFFSET)
        hosts = (self.structure.l1[at] & _OFFSET).astype(np.int64)
        counts, good = await self.disk.of(hosts >> bits)
        rows = zip(at.tolist(), hosts.tolist(), counts.tolist(), good.tolist(), strict=True)
        for index, host, count, known in rows:
            if known:
                await self._l1_entry(index, count)
                await self._table(host)

    async def _l1_entry(self, index: int, count: int) -> None:
        entry = int(self.structure.l1[index])
        if (count == 1) == bool(entry & COPIED):
            return
        self.storage.say(
            f"{self.verb} OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} "
            f"refcount={count}"
        )
        if not self.repair:
            self.result.corruptions += 1
            return
        entry ^= COPIED
        at = self.structure.l1_offset + index * 8
        try:
            await self.storage.guard(at, 8, _ACTIVE_L1)
            await self.storage.write(at, struct.pack(">Q", entry))
        except OSError:
            self.result.corruptions += 1
            self.result.check_errors += 1
            raise
        self.structure.l1[index] = entry
        self.result.corruptions_fixed += 1

    async def _table(self, host: int) -> None:
        size = self.geometry.cluster_size
        raw = np.frombuffer(await self._read(host, size), np.uint64).byteswap()
        entries = raw[0::2] if self.geometry.extended else raw
        at, counts = await self._clusters(entries)
        wrong = (counts == 1) != (entries[at] & _COPIED != 0)
        if not wrong.any():
            return
        at, counts = at[wrong], counts[wrong]
        for entry, count in zip(entries[at].tolist(), counts.tolist(), strict=True):
            self.storage.say(
                f"{self.verb} OFLAG_COPIED data cluster: l2_entry={entry:x} refcount={count}"
            )
        if not self.repair:
            self.result.corruptions += len(at)
            return
        entries[at] ^= _COPIED
        try:
            await self._write(host, raw)
        except OSError:
            self.result.corruptions += len(at)
            self.result.check_errors += 1
            raise
        self.result.corruptions_fixed += len(at)

    async def _clusters(
        self, entries: Table
    ) -> tuple["np.ndarray[tuple[int], np.dtype[np.intp]]", Table]:
        """Return the indexes of entries that have a cluster, and its refcounts, if known."""
        offsets = entries & _OFFSET
        has = (entries & _COMPRESSED == 0) & (offsets != 0)
        if self.geometry.data_file:
            zero = not self.geometry.extended and entries & np.uint64(READS_ZERO) != 0
            has |= (entries & _COMPRESSED == 0) & (entries & _COPIED != 0) & np.logical_not(zero)
        at = np.flatnonzero(has)
        if self.geometry.data_file:
            return at, np.ones(len(at), np.uint64)
        clusters = offsets[at].astype(np.int64) >> self.geometry.cluster_bits
        counts, good = await self.disk.of(clusters)
        return at[good], counts[good]

    async def _read(self, host: int, size: int) -> memoryview:
        try:
            return await self.storage.read(host, size)
        except OSError as e:
            why = os.strerror(e.errno or 0)
            self.storage.say(f"ERROR: Could not read L2 table: {why}")
            self.result.check_errors += 1
            raise

    async def _write(self, host: int, raw: Table) -> None:
        try:
            await self.storage.guard(host, self.geometry.cluster_size, _ACTIVE_L2)
        except OSError as e:
            why = os.strerror(e.errno or 0)
            self.storage.say(
                f"ERROR: Could not write L2 table; metadata overlap check failed: {why}"
            )
            raise
        try:
            await self.storage.write(host, raw.byteswap().tobytes())
        except OSError as e:
            why = os.strerror(e.errno or 0)
            self.storage.say(f"ERROR: Could not write L2 table: {why}")
            raise
