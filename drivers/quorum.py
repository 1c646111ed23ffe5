"""quorum: one disk kept by several children, who vote on what it holds.  After block/quorum.c."""

import errno
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Annotated, Any

import numpy as np

from blockemu.blockdev_options import BlockdevRef, NodeOptions
from blockemu.eager import side_by_side
from blockemu.edge import SECTOR, Edge
from blockemu.errors import InvalidParameterValue, QmpError
from blockemu.extents import ALLOCATED, DATA, ZERO, Extents
from blockemu.images.distinct import distinct
from blockemu.node import Node, Write
from blockemu.os_errors import os_error
from blockemu.perm import Perm, Role
from blockemu.qmp_server.qapi import QEnum, Since
from blockemu.qmp_server.scalars import c_int
from blockemu.schema.quorum import QuorumFailure, QuorumOpType, QuorumReportBad
from blockemu.walk import extents_above

_STRONG = ("vote-threshold", "blkverify", "rewrite-corrupted", "read-pattern")


class QuorumReadPattern(QEnum):
    """Whom a read asks: all children, or one after the other until one has not failed."""

    QUORUM = "quorum"
    FIFO = "fifo"


class BlockdevOptionsQuorum(NodeOptions, tag="quorum", since="2.9"):
    """Options of quorum.

    @blkverify: end the program when two children differ
    @children: the nodes that each hold the disk
    @vote-threshold: how many must agree or succeed
    @rewrite-corrupted: write what was agreed on to children that hold something else
    @read-pattern: whom a read asks
    """

    blkverify: bool | None = None
    children: Annotated[list[BlockdevRef], Role.DATA]
    vote_threshold: int
    rewrite_corrupted: Annotated[bool | None, Since("2.1")] = None
    read_pattern: Annotated[QuorumReadPattern | None, Since("2.2")] = None


class NoChildren(QmpError):
    """Somebody must hold the disk."""

    template = "Number of provided children must be 1 or more"


class ThresholdTooHigh(QmpError):
    """Not even all children together would reach it."""

    template = "threshold may not exceed children count"


class BadPattern(QmpError):
    """Such a pattern there is not."""

    template = "Please set read-pattern as fifo or quorum"


class VerifyNeedsTwo(QmpError):
    """To verify is to compare one child with the other."""

    template = "blkverify=on can only be set if there are exactly two files and vote-threshold is 2"


class VerifyRewritesNothing(QmpError):
    """Where a difference ends the program there is nothing to rewrite."""

    template = "rewrite-corrupted=on cannot be used with blkverify=on"


class VerifyHasTwo(QmpError):
    """It would not be two any more."""

    template = "Cannot add a child to a quorum in blkverify mode"


class TooFewLeft(QmpError):
    """(threshold): without the child it could not be reached any more."""

    template = "The number of children cannot be lower than the vote threshold {}"


class Quorum(Node[BlockdevOptionsQuorum]):
    """Writes to all children; reads are what enough of them agree on."""

    Options = BlockdevOptionsQuorum
    can_reopen = False
    verifies = False
    rewrites = False
    _length = 0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        options, count = self.options, len(self.options.children)
        if not count:
            raise NoChildren
        self.threshold = c_int(options.vote_threshold)
        if self.threshold < 1:
            raise InvalidParameterValue("vote-threshold", "a value >= 1")
        if self.threshold > count:
            raise ThresholdTooHigh
        self.in_turn = options.read_pattern is QuorumReadPattern.FIFO
        if not self.in_turn:
            self.verifies = bool(options.blkverify)
            self.rewrites = bool(options.rewrite_corrupted)
        if self.verifies and (count, self.threshold) != (2, 2):
            raise VerifyNeedsTwo
        if self.verifies and self.rewrites:
            raise VerifyRewritesNothing
        self.voters: list[Edge] = []
        self._next_index = count

    @classmethod
    def read_texts(cls, options: dict[str, Any]) -> None:
        """Let what a command line left out be said in this driver's words."""
        super().read_texts(options)
        threshold = options.setdefault("vote-threshold", 0)
        if isinstance(threshold, str):
            try:
                options["vote-threshold"] = int(threshold, 0)
            except ValueError:
                raise InvalidParameterValue("vote-threshold", "a number") from None
        pattern = options.get("read-pattern")
        if pattern is not None and pattern not in {each.value for each in QuorumReadPattern}:
            raise BadPattern

    async def open(self) -> None:
        """See that all children are of one size."""
        self.voters = list(self.children.values())
        sizes = {edge.fresh_length() for edge in self.voters}
        self._length = sizes.pop() if len(sizes) == 1 else -1

    @property
    def length(self) -> int:
        """The size that all children had in the beginning; EIO if there was none."""
        if self._length < 0:
            raise os_error(errno.EIO)
        return self._length

    def strong_options(self) -> dict[str, Any]:
        """Return all options but the children."""
        return {name: self.effective[name] for name in _STRONG if name in self.effective}

    def child_options(self, *, overridden: bool) -> dict[str, Any]:
        """Return a list without the gaps that children leave who are gone."""
        return {"children": [edge.node.full_options for edge in self.voters]}

    def child_perm(self, name: str, role: Role, perm: Perm, shared: Perm) -> tuple[Perm, Perm]:
        """Let nobody else write to one child alone (quorum_child_perm)."""
        needed = perm | Perm.WRITE if self.rewrites else perm
        return needed, shared & (Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED)

    def can_replace(self, goal: Node[Any]) -> bool:
        """Have a child replaced that nobody else uses, whatever it holds."""
        return goal is self or any(goal.parents == [edge] for edge in self.voters)

    # Children come and go (x-blockdev-change)

    def name_new_child(self) -> str:
        """Return the name of the next child.  Raises QmpError if there can be none."""
        if self.verifies:
            raise VerifyHasTwo
        return f"children.{self._next_index}"

    def added_child(self, edge: Edge) -> None:
        """Take a new child in."""
        self.voters.append(edge)
        self._next_index += 1

    def check_removal(self) -> None:
        """Raise QmpError if no child can be missed."""
        if len(self.voters) <= self.threshold:
            raise TooFewLeft(self.threshold)

    def removed_child(self, edge: Edge) -> None:
        """Do without a child."""
        self.voters.remove(edge)
        if edge.name == f"children.{self._next_index - 1}":
            self._next_index -= 1

    # Requests

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Read from one child after the other, or from all and vote."""
        if self.in_turn:
            await self._read_in_turn(offset, buf)
        else:
            await self._read_by_vote(offset, buf)

    async def _read_in_turn(self, offset: int, buf: memoryview) -> None:
        for edge in list(self.voters):
            try:
                await edge.pread(offset, buf)
            except OSError as e:
                error = e.errno or errno.EIO
                self._report(QuorumOpType.READ, edge, offset, len(buf), error)
            else:
                return
        raise os_error(error)

    async def _read_by_vote(self, offset: int, buf: memoryview) -> None:
        """Read what at least ``threshold`` children agree on (quorum_vote)."""
        answers = {edge: bytearray(len(buf)) for edge in self.voters}

        async def read(edge: Edge) -> None:
            await edge.pread(offset, memoryview(answers[edge]))

        failed = await self._ask_all(QuorumOpType.READ, offset, len(buf), read)
        for edge in failed:
            del answers[edge]
        first = next(iter(answers.values()))
        differing = next((each for each in answers.values() if each != first), None)
        if differing is None:
            buf[:] = first
            return
        if self.verifies:
            self._give_up(offset, first, differing)
        winner, outvoted = _count(answers)
        if len(answers) - len(outvoted) < self.threshold:
            self._report_failure(offset, len(buf))
            raise os_error(errno.EIO)
        buf[:] = winner
        for edge in outvoted:
            self._report(QuorumOpType.READ, edge, offset, len(buf))
        if self.rewrites:
            await side_by_side(_mend(edge, offset, buf) for edge in outvoted)

    def _give_up(self, offset: int, one: bytearray, other: bytearray) -> None:
        at = offset + _first_difference(one, other)
        self.services.give_up(
            f"quorum: offset={offset} bytes={len(one)} contents mismatch at offset {at}"
        )

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Write to all children."""
        await self._ask_all(
            QuorumOpType.WRITE, offset, len(buf), lambda edge: edge.pwrite(offset, buf, flags)
        )

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Zero in all children, by dropping what is there only if all of them can."""
        if flags & Write.NO_FALLBACK:  # some might and others not, and then they would differ
            raise NotImplementedError
        if not self.unmaps_zeroes:
            flags &= ~Write.MAY_UNMAP
        await self._ask_all(
            QuorumOpType.WRITE,
            offset,
            length,
            lambda edge: edge.write_zeroes(offset, length, flags),
        )

    @property
    def unmaps_zeroes(self) -> bool:
        """Whether all children do."""
        return all(edge.node.unmaps_zeroes for edge in self.voters)

    async def flush(self) -> None:
        """Flush one child after the other; enough of them must succeed (quorum_co_flush)."""
        failed: dict[Edge, int] = {}
        for edge in list(self.voters):
            try:
                await edge.flush()
            except OSError as e:
                failed[edge] = e.errno or errno.EIO
                self._report(QuorumOpType.FLUSH, edge, 0, 0, failed[edge])
        if len(self.voters) - len(failed) < self.threshold:
            raise os_error(_most_frequent(failed.values()))

    async def block_status(self, offset: int, length: int) -> Extents:
        """Say zero where all children do, and data elsewhere (quorum_co_block_status)."""
        known: list[Extents] = []
        for edge in list(self.voters):
            try:
                async with aclosing(extents_above(edge, offset, length)) as batches:
                    known.append(await anext(batches))
            except OSError as e:
                self._report(QuorumOpType.READ, edge, offset, length, e.errno or errno.EIO)
                return Extents.one(offset, length, DATA | ALLOCATED)
        end = min(each.end for each in known)
        known = [each.clip(offset, end) for each in known]
        points = distinct(np.concatenate([each.start for each in known]))
        zero = np.bitwise_and.reduce([each.at(points)[0] & np.uint8(ZERO) for each in known]) != 0
        status = np.where(zero, ZERO | ALLOCATED, DATA | ALLOCATED).astype(np.uint8)
        return Extents(points, status, np.full_like(points, -1), end).merged()

    async def _ask_all(
        self, kind: QuorumOpType, offset: int, length: int, ask: Callable[[Edge], Awaitable[None]]
    ) -> dict[Edge, int]:
        """Ask all children side by side; return the errors of those that failed.

        Raises OSError if fewer than ``threshold`` succeeded: what most of the others failed of.
        """
        failed: dict[Edge, int] = {}

        async def one(edge: Edge) -> None:
            try:
                await ask(edge)
            except OSError as e:
                failed[edge] = e.errno or errno.EIO
                self._report(kind, edge, offset, length, failed[edge])

        voters = list(self.voters)
        await side_by_side(one(edge) for edge in voters)
        if len(voters) - len(failed) < self.threshold:
            self._report_failure(offset, length)
            raise os_error(_most_frequent(failed[edge] for edge in voters if edge in failed))
        return failed

    # Events

    def _report(
        self, kind: QuorumOpType, edge: Edge, offset: int, length: int, error: int = 0
    ) -> None:
        number, count = _sectors(offset, length)
        self.services.emit(
            QuorumReportBad(
                type=kind,
                error=os.strerror(error) if error else None,
                node_name=edge.node.name,
                sector_num=number,
                sectors_count=count,
            )
        )

    def _report_failure(self, offset: int, length: int) -> None:
        number, count = _sectors(offset, length)
        self.services.emit(
            QuorumFailure(reference=self.title, sector_num=number, sectors_count=count)
        )


def _sectors(offset: int, length: int) -> tuple[int, int]:
    first = offset // SECTOR
    return first, -(-(offset + length) // SECTOR) - first


def _count(answers: dict[Edge, bytearray]) -> tuple[bytearray, list[Edge]]:
    """Return what most children answered, and those that answered something else.

    Of two that are equally frequent the one that came up last wins.  The outvoted come in the
    order in which QEMU tells of them: the last version first, and in it the last child.
    """
    versions: list[tuple[bytearray, list[Edge]]] = []
    for edge, data in answers.items():
        same = next((edges for known, edges in versions if known == data), None)
        if same is None:
            versions.append((data, [edge]))
        else:
            same.append(edge)
    versions.reverse()
    winner = max(versions, key=lambda version: len(version[1]))
    outvoted = [e for version in versions if version is not winner for e in version[1][::-1]]
    return winner[0], outvoted


def _most_frequent(errors: Iterable[int]) -> int:
    """Return the error that most failed with; of two equally frequent the one that came later."""
    counted = Counter(errors)
    return max(reversed(counted), key=lambda code: counted[code])


async def _mend(edge: Edge, offset: int, data: memoryview) -> None:
    """Try to correct a child; what becomes of that is told by the next read."""
    try:
        await edge.pwrite(offset, data)
    except OSError:
        return


def _first_difference(one: bytearray, other: bytearray) -> int:
    """Return the index of the first byte in which two buffers of one length differ."""
    a, b = np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8)
    return int(np.argmax(a != b))
