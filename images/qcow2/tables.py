"""L2 entries as columns: what each cluster or subcluster is, and where runs of alike ones begin.

==================  =================================  ==================================
kind                standard entry                     extended entry (bitmap)
==================  =================================  ==================================
UNALLOCATED         no offset, zero flag clear         no offset, neither bit
UNALLOCATED_ALLOC   -                                  offset, neither bit
ZERO                no offset, zero flag               no offset, zero bit
ZERO_ALLOC          offset, zero flag                  offset, zero bit
NORMAL              offset                             offset, allocated bit
COMPRESSED          compressed flag                    compressed flag
INVALID             -                                  both bits, or allocated without offset
==================  =================================  ==================================

With a data file offset 0 is an offset, too, if the entry has the copied flag.
"""

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np

from blockemu.images.distinct import distinct
from blockemu.images.lengths import ends
from blockemu.images.qcow2.constants import (
    ALL_ALLOCATED,
    ALL_ZERO,
    COPIED,
    OFFSET,
    READS_ZERO,
    SUBCLUSTERS,
)
from blockemu.images.qcow2.constants import (
    COMPRESSED as COMPRESSED_FLAG,
)
from blockemu.images.qcow2.geometry import Geometry
from blockemu.records import record

if TYPE_CHECKING:
    from numpy.typing import NDArray

Table: TypeAlias = "NDArray[np.uint64]"
I64: TypeAlias = "NDArray[np.int64]"
U8: TypeAlias = "NDArray[np.uint8]"
Indexes: TypeAlias = "NDArray[np.intp]"
Bools: TypeAlias = "NDArray[np.bool_]"

UNALLOCATED: Final = 0
UNALLOCATED_ALLOC: Final = 1
ZERO: Final = 2
ZERO_ALLOC: Final = 3
NORMAL: Final = 4
COMPRESSED: Final = 5
INVALID: Final = 6
PIECE: Final = 1 << 15  # entries: what is done with 256 KiB stays in the CPU's cache
HAS_HOST: Final = (False, True, False, True, True, False, False)
_ALLOC, _ZERO, _COPIED = np.uint64(ALL_ALLOCATED), np.uint64(ALL_ZERO), np.uint64(COPIED)
_OFFSET, _COMPRESSED = np.uint64(OFFSET), np.uint64(COMPRESSED_FLAG)
_READS_ZERO, _NIL, _ONE = np.uint64(READS_ZERO), np.uint64(0), np.uint64(1)


class Run(NamedTuple):
    """Bytes of one kind: guest offset, length, kind, the first cluster's entry, host offset.

    ``host`` is where the run's first byte lies, 0 for kinds without a host offset.  ``copied``
    tells whether the clusters belong to this image alone.
    """

    start: int
    length: int
    kind: int
    entry: int
    host: int

    @property
    def copied(self) -> bool:
        """Whether the run may be written in place."""
        return bool(self.entry & COPIED)


@record(frozen=True)
class Columns:
    """Runs of units in ascending order.

    ``first``: index of each run's first cluster; ``sub``: of its first subcluster in there;
    ``kind``, ``entry``: its kind and first L2 entry.
    """

    first: I64
    sub: I64
    kind: U8
    entry: Table


def run_starts(entries: Table, cluster_size: int) -> Indexes:
    """Return the indexes where runs of standard L2 entries begin.

    Within a run all clusters have the same flags, and lie one after the other if they lie anywhere.
    A compressed cluster is a run of its own.
    """
    breaks = _steps_other_than(entries, np.uint64(cluster_size))
    starts = np.concatenate((np.zeros(1, np.intp), breaks + 1))
    first = entries[starts]
    nowhere = first & _OFFSET == 0
    # A start like the one right before it, and neither is at any cluster, is none.
    alike = (first[1:] == first[:-1]) & nowhere[:-1] & (starts[1:] - starts[:-1] == 1)
    odd = nowhere & (first & _COPIED == 0) | (first & _COMPRESSED != 0)
    more = _within(entries, starts, np.flatnonzero(odd)) if odd.any() else starts[:0]
    starts = np.concatenate((starts[:1], starts[1:][~alike]))
    return distinct(np.concatenate((starts, more))) if len(more) else starts


def _steps_other_than(entries: Table, step: np.uint64) -> Indexes:
    """Return where an entry and the next one do not differ by ``step``.

    Piece by piece: differences do not leave the CPU's cache (``make bench``: images).
    """
    others = np.empty(len(entries) - 1, np.bool_)
    differences = np.empty(min(PIECE, len(others)), np.uint64)
    for at in range(0, len(others), PIECE):
        part = others[at : at + PIECE]
        some = differences[: len(part)]
        np.subtract(entries[at + 1 :][: len(part)], entries[at:][: len(part)], out=some)
        np.not_equal(some, step, out=part)
    return np.flatnonzero(others)


def _within(entries: Table, starts: Indexes, odd: Indexes) -> Indexes:
    """Return starts that the difference of entries does not tell of.

    ``odd`` are the runs that count up from no cluster to the file's second one, which does not
    follow on it, or from a compressed cluster, which is a run of its own.
    """
    begins = starts[odd]
    length = ends(starts, len(entries))[odd] - begins
    packed = entries[begins] & _COMPRESSED != 0
    second = begins[~packed & (length > 1)] + 1
    begins, length = begins[packed], length[packed]
    within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    return np.concatenate((second, np.repeat(begins, length) + within))


def has_offset(entries: Table, data_file: bool) -> Bools:
    """Tell of each entry, none compressed, whether it has a host cluster."""
    mask = _OFFSET | _COPIED if data_file else _OFFSET
    found: NDArray[np.bool_] = entries & mask != 0
    return found


def kinds(entries: Table, bitmaps: "Table | None", subs: "I64 | None", data_file: bool) -> U8:
    """Return the kind of each entry, or of subcluster ``subs[i]`` of entry i."""
    compressed = entries & _COMPRESSED != 0
    offset = has_offset(entries, data_file).astype(np.uint8)
    if bitmaps is None or subs is None:
        zero = entries & _READS_ZERO != 0
        kind = np.where(zero, ZERO + offset, NORMAL * offset)
    else:
        at = subs.astype(np.uint64)
        allocated = bitmaps >> at & _ONE != 0
        zero = bitmaps >> (at + np.uint64(SUBCLUSTERS)) & _ONE != 0
        kind = np.where(zero, ZERO + offset, UNALLOCATED + offset)
        kind = np.where(allocated, NORMAL, kind)
        both = bitmaps >> np.uint64(SUBCLUSTERS) & bitmaps & _ALLOC != 0
        homeless = (offset == 0) & (bitmaps & _ALLOC != 0)
        kind = np.where(both & (offset != 0) | homeless, INVALID, kind)
    return np.where(compressed, COMPRESSED, kind).astype(np.uint8)


def columns(entries: Table, bitmaps: "Table | None", geometry: Geometry) -> Columns:
    """Return the runs in a stretch of L2 entries, at least one entry."""
    if bitmaps is None:
        begins = run_starts(entries, geometry.cluster_size)
        some = entries[begins]
        alike = kinds(some, None, None, geometry.data_file)
        return Columns(begins.astype(np.int64), np.zeros(len(begins), np.int64), alike, some)
    plain = (bitmaps == _NIL) | (bitmaps == _ALLOC) | (bitmaps == _ZERO)
    pieces = np.where(plain | (entries & _COMPRESSED != 0), 1, SUBCLUSTERS)
    first = np.repeat(np.arange(len(entries)), pieces)
    sub = np.arange(len(first)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    entry = entries[first]
    kind: U8 = kinds(entry, bitmaps[first], sub, geometry.data_file)
    hosted = np.array(HAS_HOST)[kind]
    bits = geometry.subcluster_bits
    host = np.where(hosted, (entry & _OFFSET).astype(np.int64) + (sub << bits), 0)
    place = (first << geometry.cluster_bits) + (sub << bits)
    follows = ~hosted[1:] | (host[1:] - host[:-1] == place[1:] - place[:-1])
    same = (kind[1:] == kind[:-1]) & follows & (kind[1:] < COMPRESSED)
    same &= (entry[1:] & _COPIED) == (entry[:-1] & _COPIED)
    begins = np.flatnonzero(np.concatenate((np.ones(1, np.bool_), ~same)))
    return Columns(first[begins], sub[begins], kind[begins], entry[begins])


def runs(
    entries: Table, bitmaps: "Table | None", geometry: Geometry, offset: int, length: int
) -> list[Run]:
    """Return the runs of a byte range, clipped to it; the entries are those of its clusters."""
    bits, sub_bits = geometry.cluster_bits, geometry.subcluster_bits
    base, end = offset >> bits << bits, offset + length
    found = columns(entries, bitmaps, geometry)
    starts: list[int] = (base + (found.first << bits) + (found.sub << sub_bits)).tolist()
    subs: list[int] = found.sub.tolist()
    out = []
    for start, stop, sub, kind, entry in zip(
        starts,
        [*starts[1:], end],
        subs,
        found.kind.tolist(),
        found.entry.tolist(),
        strict=True,
    ):
        lead = offset - start if start < offset else 0
        size = min(stop, end) - start - lead
        if size > 0:
            host = (entry & OFFSET) + (sub << sub_bits) + lead if HAS_HOST[kind] else 0
            out.append(Run(start + lead, size, kind, entry, host))
    return out


def subcluster_kind(bitmap: int, first: int, last: int) -> int | None:
    """Return the kind of subclusters without an offset; None: they differ, or make no sense.

    A scalar look-up: numpy is slow for so little.
    """
    wanted = (2 << last) - (1 << first)
    allocated, zero = bitmap & ALL_ALLOCATED, bitmap >> SUBCLUSTERS
    if allocated & zero:
        return None
    if allocated & wanted == wanted:
        return NORMAL
    if zero & wanted == wanted:
        return ZERO
    return None if (allocated | zero) & wanted else UNALLOCATED


def allocated_around(entry: int, bitmap: int, sub: int) -> tuple[int, int]:
    """Return the range of subclusters that has ``sub`` and all that are allocated."""
    if entry & COMPRESSED_FLAG:
        return 0, SUBCLUSTERS
    allocated = bitmap & ALL_ALLOCATED
    if not allocated:
        return sub, sub + 1
    lowest = (allocated & -allocated).bit_length() - 1
    return min(sub, lowest), max(sub + 1, allocated.bit_length())


def contiguous(host: int, count: int, cluster_bits: int) -> Table:
    """Return the L2 entries of ``count`` clusters allocated in a row at ``host``."""
    return (np.arange(count, dtype=np.uint64) << np.uint64(cluster_bits)) + np.uint64(host | COPIED)


def sub_range(count: int, begin: int, end: int) -> Table:
    """Return for each of ``count`` clusters a mask of its subclusters in a range of subclusters.

    ``begin`` and ``end`` count subclusters from the first cluster's; the mask is in the low half.
    """
    low = np.clip(begin - np.arange(count) * SUBCLUSTERS, 0, SUBCLUSTERS).astype(np.uint64)
    high = np.clip(end - np.arange(count) * SUBCLUSTERS, 0, SUBCLUSTERS).astype(np.uint64)
    return (_ONE << high) - (_ONE << low)


def compressed_extents(entries: Table, geometry: Geometry) -> tuple[I64, I64]:
    """Return host offsets and lengths in bytes of compressed clusters."""
    offset = (entries & np.uint64(geometry.compressed_offset)).astype(np.int64)
    field = entries >> np.uint64(geometry.compressed_shift)
    sectors = (field & np.uint64(geometry.compressed_sectors)).astype(np.int64) + 1
    return offset, sectors * 512 - (offset & 511)


def compressed_entries(hosts: list[int], sizes: list[int], geometry: Geometry) -> Table:
    """Return the L2 entries of compressed clusters of so many bytes (uint64 of shape (n,))."""
    host, size = np.array(hosts, np.uint64), np.array(sizes, np.uint64)
    sectors = (host + size - _ONE >> np.uint64(9)) - (host >> np.uint64(9))
    return host | sectors << np.uint64(geometry.compressed_shift) | _COMPRESSED
