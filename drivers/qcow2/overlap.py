"""Guarding metadata: guest data must not be written over it, whatever tables and refcounts say.

QEMU checks each write.  Here tables are checked once, when they are loaded, since what is allocated
later cannot lie where something else does, unless refcounts lie: those are checked when their block
is loaded.  Only a table or block that failed the check has its writes looked at one by one.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from blockemu.images.lengths import lengths
from blockemu.images.qcow2.constants import (
    COMPRESSED,
    COPIED,
    MAX_HOST_OFFSET,
    MAX_L1_BYTES,
    OFFSET,
    REFTABLE_OFFSET,
)
from blockemu.images.qcow2.tables import Table, run_starts

if TYPE_CHECKING:
    from blockemu.drivers.qcow2.freed import I64
    from blockemu.drivers.qcow2.image import Image

NAMES: Final = (  # in the order in which one of several is told
    "qcow2_header",
    "active L1 table",
    "refcount table",
    "snapshot table",
    "inactive L1 table",
    "active L2 table",
    "refcount block",
    "inactive L2 table",
    "bitmap directory",
)
_COPIED, _OFFSET = np.uint64(COPIED), np.uint64(OFFSET)
_NONE = np.zeros(0, np.int64)
_OWNED = np.uint64(COPIED | COMPRESSED)


class Overlap:
    """Knows where metadata lies, by cluster index.

    ``inactive_l2``: clusters of the snapshots' L2 tables, if these are guarded.
    """

    def __init__(self, image: "Image") -> None:
        self.image = image
        self.bits = image.geometry.cluster_bits
        self.inactive_l2: I64 = _NONE
        self.unusable = 0  # why the snapshots' L2 tables cannot be found: an errno
        self._clusters: I64 = _NONE
        self._what: I64 = _NONE
        self._known_at = -1  # Freed.ranges when it was worked out: metadata may have moved since

    def forget(self) -> None:
        """Look anew where metadata lies, and what is guarded."""
        self._known_at = -1

    @property
    def guards(self) -> bool:
        """Whether guest data could overwrite what is guarded."""
        return bool(self.image.settings.overlap_check) and not self.image.geometry.data_file

    def name(
        self, host: int, length: int, ignore: frozenset[str] = frozenset(), *, data: bool = True
    ) -> str | None:
        """Return what metadata a range of the file has, None if there is none.

        ``ignore`` are kinds that may be hit; ``data``: it is guest data that is to be written.
        """
        if not self.guards if data else not self.image.settings.overlap_check:
            return None
        self._refresh()
        first = int(self._clusters.searchsorted(host >> self.bits))
        last = int(self._clusters.searchsorted((host + length - 1) >> self.bits, "right"))
        hit = [NAMES[i] for i in sorted(set(self._what[first:last].tolist()))]
        return next((name for name in hit if name not in ignore), None)

    def at(self, cluster: int) -> str | None:
        """Return what metadata a cluster has in which some other kind is about to be put."""
        return self.name(cluster << self.bits, 1 << self.bits, data=False)

    def touches(self, entries: Table) -> bool:
        """Tell whether clusters that may be written in place lie where metadata does."""
        if not self.guards:
            return False
        if self.unusable:
            return True
        owned = entries[entries & _OWNED == _COPIED] & _OFFSET
        if not len(owned):
            return False
        self._refresh()
        begins = run_starts(owned, 1 << self.bits)
        low = owned[begins].astype(np.int64) >> self.bits
        count = lengths(begins, len(owned))
        first = self._clusters.searchsorted(low)
        last = self._clusters.searchsorted(low + count)
        return bool((first != last).any())

    def uncounted(self, first: int, counts: "np.ndarray[tuple[int], np.dtype[np.generic]]") -> bool:
        """Tell whether refcounts from a cluster on say of metadata that it is free."""
        if not self.image.settings.overlap_check:
            return False
        if self.unusable:
            return True
        self._refresh()
        low, high = self._clusters.searchsorted((first, first + len(counts)))
        return bool((counts[self._clusters[low:high] - first] == 0).any())

    def _refresh(self) -> None:
        image = self.image
        if self._known_at == image.freed.ranges:
            return
        self._known_at = image.freed.ranges
        header, mapping, refcounts = image.header, image.mapping, image.refcounts
        inactive = [
            self._range(offset, size * 8)
            for offset, size in {(s.l1_table_offset, s.l1_size) for s in image.snapshots}
            if offset < MAX_HOST_OFFSET and size <= MAX_L1_BYTES // 8
        ]
        ext = image.extensions.bitmaps
        where = {
            "qcow2_header": self._range(0, 1),
            "active L1 table": self._range(mapping.l1_offset, len(mapping.l1) * 8),
            "refcount table": self._range(refcounts.table_offset, len(refcounts.table) * 8),
            "snapshot table": self._range(header.snapshots_offset, image.snapshot_bytes),
            "inactive L1 table": np.concatenate(inactive) if inactive else _NONE,
            "active L2 table": self._entries(mapping.l1, OFFSET),
            "refcount block": self._entries(refcounts.table, REFTABLE_OFFSET),
            "inactive L2 table": self.inactive_l2,
            "bitmap directory": (
                self._range(ext.directory_offset, ext.directory_size) if ext else _NONE
            ),
        }
        guarded = image.settings.overlap_check
        parts = [where[name] if name in guarded else _NONE for name in NAMES]
        clusters = np.concatenate(parts)
        what = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        order = np.argsort(clusters, kind="stable")
        self._clusters, self._what = clusters[order], what[order]

    def _range(self, offset: int, length: int) -> "I64":
        if length <= 0:
            return _NONE
        return np.arange(offset >> self.bits, (offset + length - 1 >> self.bits) + 1)

    def _entries(self, table: Table, mask: int) -> "I64":
        hosts = table & np.uint64(mask)
        found: I64 = hosts[hosts != 0].astype(np.int64) >> self.bits
        return found
