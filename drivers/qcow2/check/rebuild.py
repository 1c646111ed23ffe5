"""A new refcount structure, made of nothing but counted references.

After rebuild_refcount_structure, block/qcow2-refcount.c, and so are the places of what is new.
"""

import struct
from typing import Final

import numpy as np

from blockemu.drivers.qcow2.check.references import References
from blockemu.drivers.qcow2.check.storage import Storage, Structure
from blockemu.errors import HostError
from blockemu.images.qcow2.header import REFTABLE_AT
from blockemu.images.qcow2.refcount import DTYPES, pack_counts
from blockemu.images.qcow2.tables import Table

STEP: Final = 1 << 16  # clusters looked at in one go for a free one
_NOTHING: Final[frozenset[str]] = frozenset()


class RebuildError(HostError):
    """(what failed, why)."""

    template = "{}: {}"


class Rebuilder:
    """Writes refcount blocks and a table for what ``references`` has counted.

    Clusters for them are taken from there, too; the old ones are leaked.
    """

    def __init__(self, storage: Storage, structure: Structure, references: References) -> None:
        self.storage = storage
        self.structure = structure
        self.references = references
        self.geometry = structure.geometry
        self.per = structure.geometry.counts_per_block
        self.table: Table = np.zeros(0, np.uint64)

    async def rebuild(self) -> None:
        """Write the structure and switch to it.

        Raises:
            RebuildError: it cannot be written.

        """
        size = self.geometry.cluster_size
        await self._write_blocks(0, self.references.clusters)
        while True:
            clusters = self.geometry.clusters(len(self.table) * 8)
            first = self._take(clusters, 0)
            if not await self._write_blocks(first, first + clusters):
                break
        at = first * size
        await self._put("ERROR writing reftable", at, self.table.byteswap().tobytes())
        try:
            await self.storage.write(REFTABLE_AT, struct.pack(">QI", at, clusters))
        except OSError as e:
            raise RebuildError("ERROR setting reftable", e.strerror, errno=e.errno or 0) from e
        self.structure.reftable, self.structure.reftable_offset = self.table, at
        self.storage.moved(self.table, at)

    async def _write_blocks(self, cluster: int, end: int) -> bool:
        """Write the blocks that count clusters of a range; tell whether the table grew."""
        per, grown, free = self.per, False, 0
        while True:
            used = np.flatnonzero(self.references.counts[cluster:end])
            if not len(used):
                return grown
            index = (cluster + int(used[0])) // per
            if index >= len(self.table) or not self.table[index]:
                at = self._take(1, max(free, index * per))
                free = at
                end = max(end, at + 1)
                if index >= len(self.table):
                    words = self.geometry.cluster_size // 8
                    more = -(-(index + 1) // words) * words - len(self.table)
                    self.table = np.concatenate((self.table, np.zeros(more, np.uint64)))
                    grown = True
                self.table[index] = at << self.geometry.cluster_bits
            await self._put("ERROR writing refblock", int(self.table[index]), self._block(index))
            cluster = (index + 1) * per

    def _block(self, index: int) -> bytes:
        """Return the bytes of the block with an index."""
        order = self.geometry.refcount_order
        counts = np.zeros(self.per, DTYPES[order])
        some = self.references.counts[index * self.per : (index + 1) * self.per]
        counts[: len(some)] = some
        return pack_counts(counts, order)

    def _take(self, count: int, start: int) -> int:
        """Take free clusters in a row, the first from ``start`` on; return the first."""
        counts = self.references.counts
        if count == 1:
            first = self._first_free(start)
            self.references.hold(first, first + 1)
            return first
        free = np.flatnonzero(counts[start:] == 0) + start
        runs = np.flatnonzero(np.diff(free, prepend=-2) != 1)
        lengths = np.diff(runs, append=len(free))
        fits = np.flatnonzero(lengths >= count)
        if len(fits):
            first = int(free[runs[fits[0]]])
        elif len(free) and int(free[-1]) == len(counts) - 1:
            first = int(free[runs[-1]])
        else:
            first = max(start, len(counts))
        self.references.hold(first, first + count)
        return first

    def _first_free(self, start: int) -> int:
        counts = self.references.counts
        while start < len(counts):
            some = counts[start : start + STEP]
            at = int(some.argmin())
            if not some[at]:
                return start + at
            start += len(some)
        return start

    async def _put(self, what: str, at: int, data: bytes) -> None:
        try:
            await self.storage.guard(at, len(data), _NOTHING)
            await self.storage.write(at, data)
        except OSError as e:
            raise RebuildError(what, e.strerror, errno=e.errno or 0) from e
