"""What of the sources ``convert`` copies, zeroes or leaves to the target's backing file."""

import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final, NamedTuple

import numpy as np

from blockemu.backend import Backend
from blockemu.chain_map import map_chain, unfiltered
from blockemu.extents import DATA, I64, U8, ZERO, Extents
from blockemu.images.lengths import ends, lengths
from blockemu.programs.img.refusals import Refusal
from blockemu.programs.img.sparse import SECTOR
from blockemu.records import record

COPY: Final = 0
CLEAR: Final = 1
SKIP: Final = 2  # the target's backing file has it
LONGEST = 2**31 - 512  # bytes of one request


class Chunk(NamedTuple):
    """One step of the copy, in bytes."""

    start: int
    length: int
    kind: int


@record(frozen=True, eq=False)
class Plan:
    """Runs of COPY, CLEAR and SKIP without gaps: where each begins, and where the last one ends."""

    start: I64
    kind: U8
    end: int

    def split(self, at: int) -> "Plan":
        """Let a run begin there."""
        row = int(self.start.searchsorted(at, "right"))
        if not 0 < at < self.end or self.start[row - 1] == at:
            return self
        before, after = self.start[:row], self.start[row:]
        start = np.concatenate((before, [at], after))
        return Plan(start, np.concatenate((self.kind[:row], self.kind[row - 1 :])), self.end)

    def without_zeroes_from(self, at: int) -> "Plan":
        """Skip what is zero beyond the target's backing file: it is so already."""
        plan = self.split(at)
        beyond = (plan.start >= at) & (plan.kind == CLEAR)
        return Plan(plan.start, np.where(beyond, np.uint8(SKIP), plan.kind), plan.end)

    def in_clusters(self, size: int) -> "Plan":
        """Copy each cluster that is not all of one kind, since it has to be written whole."""
        end = ends(self.start, self.end)
        first = -(-self.start // size) * size
        last = end // size * size
        whole = last > first
        start = np.stack((first[whole], last[whole]), axis=1).ravel()
        kind = np.stack((self.kind[whole], np.full(int(whole.sum()), COPY)), axis=1).ravel()
        if not len(start) or start[0]:
            start, kind = np.concatenate(([0], start)), np.concatenate(([COPY], kind))
        some = ends(start, self.end) > start
        return Plan(start[some], kind[some].astype(np.uint8), self.end)

    def chunks(self, buffer: int, *, write_zeroes: bool) -> Iterator[Chunk]:
        """Yield steps, those through the buffer not longer than that."""
        end = ends(self.start, self.end)
        for start, stop, kind in zip(
            self.start.tolist(), end.tolist(), self.kind.tolist(), strict=True
        ):
            buffered = kind == COPY or (write_zeroes and kind == CLEAR)
            step = buffer if buffered else LONGEST
            for at in range(start, stop, step):
                yield Chunk(at, min(step, stop - at), kind)

    def total(self, *, write_zeroes: bool) -> int:
        """Return how many bytes go through the buffer."""
        length = lengths(self.start, self.end)
        wanted = self.kind == COPY
        if write_zeroes:
            wanted |= self.kind == CLEAR
        return int(length[wanted].sum())


class StatusUnknown(Refusal):
    """(offset, why)."""

    template = "error while reading block status at offset {}: {}"


class Planner:
    """Works out what to do with sources, one after the other.

    ``top_only``: what is not in the topmost image itself is left to the target's backing file.
    ``warn`` is given if status that cannot be read is no reason to give up.
    """

    def __init__(self, *, top_only: bool, warn: Callable[[str], None] | None) -> None:
        self._top_only = top_only
        self._warn = warn
        self.unknown: list[tuple[int, str]] = []  # (offset, warning) where status was not told

    async def plan(self, sources: list[Backend]) -> Plan:
        """Return the plan.

        Raises:
            StatusUnknown: the status of a source cannot be read.

        """
        starts, kinds, at = [], [], 0
        for source in sources:
            plan = await self._of(source, at)
            starts.append(plan.start + at)
            kinds.append(plan.kind)
            at += source.length
        if not at:
            return _joined([], [], 0)
        return Plan(np.concatenate(starts), np.concatenate(kinds), at)

    async def _of(self, source: Backend, before: int) -> Plan:
        starts: list[I64] = []
        kinds: list[U8] = []
        at, size = 0, source.length
        length = size
        while at < size:
            try:
                async for start, kind, end in self._runs(source, at, min(length, size - at)):
                    starts.append(start)
                    kinds.append(kind)
                    at = end
                length = size
            except OSError as e:
                tried = min(length, size - at)
                length = -(-tried // (4 * SECTOR)) * SECTOR
                if self._may_go_on(before, at, tried, e):
                    continue
                starts.append(np.array([at], np.int64))
                kinds.append(np.array([COPY], np.uint8))
                at, length = at + SECTOR, size
        return _joined(starts, kinds, size)

    def _may_go_on(self, before: int, at: int, tried: int, error: OSError) -> bool:
        """Tell whether there is a shorter range to try; else one sector is just read."""
        why = os.strerror(error.errno or errno.EIO)
        if self._warn is None:
            raise StatusUnknown(at, why) from error
        if tried > SECTOR:
            return True
        text = f"error while reading block status at offset {at}: {why}"
        self._warn(text)
        self.unknown.append((before + at, text))
        return False

    async def _runs(
        self, source: Backend, offset: int, length: int
    ) -> AsyncIterator[tuple[I64, U8, int]]:
        """Yield where runs start, what to do with them, and where they end."""
        if not self._top_only:
            async for runs in map_chain(source, offset, length):
                kind = np.where(runs.status & ZERO, np.uint8(CLEAR), np.uint8(COPY))
                yield runs.start, kind, runs.end
            return
        backing = unfiltered(source).node.backing
        beyond = 0 if backing is None else backing.length
        async for own in source.extents(offset, length):
            part = own
            if own.start[0] < beyond < own.end:  # there the source reads as zeroes
                part = Extents.concat(
                    [own.clip(int(own.start[0]), beyond), own.clip(beyond, own.end)]
                )
            bare = np.where(part.start < beyond, np.uint8(SKIP), np.uint8(CLEAR))
            kind = np.where(part.status & DATA, np.uint8(COPY), bare)
            yield part.start, np.where(part.status & ZERO, np.uint8(CLEAR), kind), part.end


def _joined(starts: list[I64], kinds: list[U8], end: int) -> Plan:
    """Return a plan in which runs are as the sources told of them: the progress shows that.

    A sector is what it begins with: a file may end anywhere in one.
    """
    if not starts:
        return Plan(np.zeros(0, np.int64), np.zeros(0, np.uint8), end)
    start = -(-np.concatenate(starts) // SECTOR) * SECTOR
    some = ends(start, end) > start
    return Plan(start[some], np.concatenate(kinds)[some], end)
