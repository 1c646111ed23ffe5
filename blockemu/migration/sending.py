"""What a machine sends of itself, part by part (migration/savevm.c).

What is wrong with the way that it takes is the channel's to know: nothing here asks.
"""

import asyncio
import errno
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

from blockemu.errors import QmpError
from blockemu.migration import block_wire, sections, wire
from blockemu.migration.aliases import outgoing
from blockemu.migration.bitmap_wire import END
from blockemu.migration.bitmaps import LeavingBitmaps
from blockemu.migration.blocks import LeavingBlocks
from blockemu.migration.channel import Way
from blockemu.migration.rate import Rate
from blockemu.migration.sections import BITMAPS, BLOCKS, RAM
from blockemu.schema.migration import MigrationCapability as C

if TYPE_CHECKING:
    from blockemu.migration.manager import Manager

BATCH: Final = 512  # chunks of bits that are sent at once
_CHUNK: Final = 1024  # bytes that one may take


class NotSent(Exception):
    """A part cannot be sent; what can be said of it is said."""


class Sending:
    """The parts of one machine that leaves, and the stream they go into."""

    def __init__(self, manager: "Manager", channel: Way) -> None:
        self._manager = manager
        self._emu = manager.emu
        self.channel = channel
        self.rate = Rate(self._emu.clocks.realtime, channel)
        self.bitmaps: LeavingBitmaps | None = None
        self.blocks: LeavingBlocks | None = None

    async def send(self, data: bytes) -> None:
        """Send some bytes."""
        await self.channel.write(data)

    async def _section(
        self, kind: int, ident: int, data: bytes, name: str = "", version: int = 0
    ) -> None:
        await self.send(sections.section(kind, ident, data, name, version))

    # The begin

    async def header(self) -> None:
        """Say what machine it is, and what the other side has to be ready for."""
        capabilities = self._manager.capabilities
        await self.send(wire.header(self._emu.machine.type))
        if capabilities.answers:
            await self.send(wire.command(wire.OPEN_RETURN_PATH))
            await self.send(wire.command(wire.PING, (1).to_bytes(4, "big")))
        if capabilities.postcopy:
            sizes = b""
            if C.POSTCOPY_RAM in capabilities:
                sizes = bytes(8) + wire.PAGE.to_bytes(8, "big")
            await self.send(wire.command(wire.POSTCOPY_ADVISE, sizes))

    async def begin_blocks(self) -> None:
        """Announce the disks, if they go along.

        Raises:
            NotSent: one cannot be read.

        """
        if C.BLOCK not in self._manager.capabilities:
            return
        self.blocks = LeavingBlocks(
            self._emu.graph,
            allocated_only=bool(self._manager.parameters.values.block_incremental),
            zeroes=C.ZERO_BLOCKS in self._manager.capabilities,
        )
        try:
            self.blocks.collect()
        except QmpError as e:
            self._manager.report(str(e))
            await self._section(wire.SECTION_START, BLOCKS, b"", "block", 1)
            raise NotSent from e
        await self._section(wire.SECTION_START, BLOCKS, block_wire.end(), "block", 1)

    async def begin_memory(self) -> None:
        """Say that there is no memory."""
        await self._section(wire.SECTION_START, RAM, wire.ram(first=True), "ram", 4)

    async def begin_bitmaps(self) -> None:
        """Announce the bitmaps, if they go along.

        Raises:
            NotSent: one cannot leave.

        """
        if C.DIRTY_BITMAPS not in self._manager.capabilities:
            return
        mapping = self._manager.parameters.values.block_bitmap_mapping
        aliases = outgoing(mapping) if mapping is not None else None
        bitmaps = LeavingBitmaps(self._emu.graph, aliases)
        try:
            bitmaps.collect()
        except QmpError as e:
            self._manager.report(str(e))
            await self._section(wire.SECTION_START, BITMAPS, b"", "dirty-bitmap", 1)
            raise NotSent from e
        self.bitmaps = bitmaps
        data = bitmaps.starts() + bytes([END])
        await self._section(wire.SECTION_START, BITMAPS, data, "dirty-bitmap", 1)

    # What is still to be sent

    @property
    def first_pass(self) -> bool:
        """Whether disks are being read for the first time."""
        return self.blocks is not None and not self.blocks.passed

    @property
    def pending_blocks(self) -> int:
        """Bytes of disks."""
        return self.blocks.pending if self.blocks else 0

    @property
    def pending(self) -> int:
        """The same and bits of bitmaps."""
        return self.pending_blocks + (self.bitmaps.pending if self.bitmaps else 0)

    # Disks

    async def some_blocks(self) -> None:
        """Send as much of the disks as may be now.

        Raises:
            NotSent: one cannot be read.

        """
        assert self.blocks is not None
        await self.send(wire.proceed(wire.SECTION_PART, BLOCKS))
        try:
            await self.blocks.iterate(self.send, self.rate)
        except OSError as e:
            code = -(e.errno or errno.EIO)
            where = f"{BLOCKS}(block)"
            self._manager.report(f"failed to save SaveStateEntry with id(name): {where}: {code}")
            raise NotSent from e
        await self.send(wire.footer(BLOCKS))

    async def last_blocks(self) -> None:
        """Send all that is left of the disks, and let go of them.

        Raises:
            NotSent: one cannot be read.

        """
        if self.blocks is None:
            return
        await self.send(wire.proceed(wire.SECTION_END, BLOCKS))
        try:
            await self.blocks.complete(self.send)
        except OSError as e:
            raise NotSent from e
        await self.send(wire.footer(BLOCKS))
        await self.blocks.let_go()

    # Memory and bitmaps

    async def last_memory(self) -> None:
        """Say that all of the memory was sent."""
        await self._section(wire.SECTION_END, RAM, wire.ram())

    async def all_bits(self) -> None:
        """Send the bitmaps as a whole, and let go of them."""
        if self.bitmaps is None:
            return
        await self.send(wire.proceed(wire.SECTION_END, BITMAPS))
        for part in self.bitmaps.bits(BATCH):
            await self.send(part)
            await asyncio.sleep(0)
        await self.send(self.bitmaps.completes() + bytes([END]) + wire.footer(BITMAPS))
        await self.bitmaps.let_go()

    async def parts_of_bits(self) -> AsyncGenerator[None, None]:
        """Send bits, part by part, in small ones if they are held back."""
        assert self.bitmaps is not None
        limit = self.rate.limit
        batch = min(BATCH, max(1, limit // _CHUNK)) if limit else BATCH
        ident = wire.proceed(wire.SECTION_PART, BITMAPS)
        for part in self.bitmaps.bits(batch):
            await self.send(ident + part + bytes([END]) + wire.footer(BITMAPS))
            yield

    async def last_bits(self) -> None:
        """Say that all bits were sent."""
        assert self.bitmaps is not None
        data = self.bitmaps.completes() + bytes([END])
        await self._section(wire.SECTION_END, BITMAPS, data)

    # The end

    def devices(self, doing: str) -> bytes:
        """Return what the machine was doing."""
        return sections.devices(self._emu.clocks.virtual.now(), doing)

    async def machine(self, doing: str) -> None:
        """Send what there is to be known for the machine to run while bits are missing."""
        package = wire.command(wire.POSTCOPY_LISTEN)
        package += self.devices(doing) + wire.command(wire.POSTCOPY_RUN)
        await self.send(wire.packaged(package))

    async def let_go(self) -> None:
        """Let others use disks and bitmaps again."""
        if self.blocks is not None:
            await self.blocks.let_go()
        if self.bitmaps is not None:
            await self.bitmaps.let_go()
