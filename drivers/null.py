"""null-co and null-aio: a device of nothing, which forgets what is written to it."""

import asyncio
from typing import Any

from blockemu.blockdev_options import NodeOptions
from blockemu.errors import InvalidParameterValue, QmpError
from blockemu.extents import ALLOCATED, ZERO, Extents
from blockemu.node import Node
from blockemu.optlist import SIZE_WANTED
from blockemu.qmp_server.qapi import U64
from blockemu.route import NO_ROUTE, Commit, Leaf, Placed, Ranges, Route, Segments


class OnlyName(QmpError):
    """The driver knows one file name."""

    template = "The only allowed filename for this driver is '{}://'"


class BadLatency(QmpError):
    """More than a clock can count."""

    template = "latency-ns is invalid"


class BlockdevOptionsNull(NodeOptions):
    """Options of the null drivers.

    @size: size of the device in bytes, 1 GiB by default
    @latency-ns: how long a request takes, in nanoseconds
    @read-zeroes: whether contents are known to be zeroes
    """

    size: int | None = None
    latency_ns: U64 | None = None
    read_zeroes: bool | None = None


class NullCoOptions(BlockdevOptionsNull, tag="null-co"):
    """Options of null-co."""


class NullAioOptions(BlockdevOptionsNull, tag="null-aio"):
    """Options of null-aio."""


class Nothing(Leaf):
    """Takes all, gives nothing."""

    __slots__ = ()

    def read_now(self, offset: int, buf: memoryview) -> bool:
        """Fill with zeroes: what the buffer held may be another client's."""
        buf[:] = bytes(len(buf))
        return True

    def read(self, offset: int, buf: memoryview) -> None:
        """Fill with zeroes."""
        buf[:] = bytes(len(buf))

    def write_now(self, offset: int, buf: memoryview) -> None:
        """Forget it."""


class Null(Node[BlockdevOptionsNull]):
    """What both drivers share."""

    is_protocol = True
    size_options = frozenset({"size"})

    async def open(self) -> None:
        """Check the numbers."""
        self.size = 1 << 30 if self.options.size is None else self.options.size
        self.latency = self.options.latency_ns or 0
        if self.size < 0:
            raise InvalidParameterValue("size", SIZE_WANTED)
        if self.latency >= 1 << 63:
            raise BadLatency

    @classmethod
    def parse_filename(cls, filename: str, options: dict[str, Any]) -> None:
        """Accept ``null-co://`` and nothing else."""
        (protocol,) = cls.protocols
        if filename != f"{protocol}://":
            raise OnlyName(protocol)
        del options["filename"]

    def gather_filename(self) -> None:
        """Be ``null-co://`` unless an option matters that the name cannot say."""
        said = self.full_options.keys() <= {"driver", "filename", "latency-ns"}
        self.exact_filename = f"{self.driver}://" if said else ""

    def strong_options(self) -> dict[str, Any]:
        """Return what decides about size and contents."""
        return {k: self.effective[k] for k in ("size", "read-zeroes") if k in self.effective}

    def allocated_size(self) -> int:
        """Take no room."""
        return 0

    @property
    def length(self) -> int:
        """The size asked for."""
        return self.size

    async def pread(self, offset: int, buf: memoryview) -> None:
        """Take the latency; zero the buffer, since it may hold another client's data."""
        buf[:] = bytes(len(buf))
        await self._complete()

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        """Take the latency."""
        await self._complete()

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Take the latency."""
        await self._complete()

    async def flush(self) -> None:
        """Take the latency."""
        await self._complete()

    async def block_status(self, offset: int, length: int) -> Extents:
        """Report one run; without ``read-zeroes`` it is neither data nor zero, as in QEMU."""
        status = ZERO | ALLOCATED if self.options.read_zeroes else 0
        return Extents.one(offset, length, status, offset)

    async def _complete(self) -> None:
        await self.services.clocks.realtime.sleep(self.latency)


class NullCo(Null):
    """Completes in the turn of the loop that the request came in."""

    Options = NullCoOptions
    protocols = ("null-co",)

    def route(self) -> Route:
        """Plan all, unless requests shall take time."""
        if self.latency:
            return NO_ROUTE
        leaf = Nothing()
        source = None if self.options.read_zeroes else leaf

        def read(offset: int, length: int) -> Segments:
            return ((source, offset, length),)

        def write(offset: int, length: int) -> tuple[Segments, Commit | None]:
            return ((leaf, offset, length),), None

        return Route(read, write)

    async def place(self, ranges: Ranges) -> Placed:
        """Place nowhere."""
        if self.latency:
            raise NotImplementedError
        return [(Nothing(), *each) for each in ranges], None


class NullAio(Null):
    """Completes in a later turn of the loop, as asynchronous I/O does."""

    Options = NullAioOptions
    protocols = ("null-aio",)

    async def _complete(self) -> None:
        if self.latency:
            await super()._complete()
        else:
            await asyncio.sleep(0)
