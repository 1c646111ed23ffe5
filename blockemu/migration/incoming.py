"""A machine that comes: waiting for its stream, reading it, starting what it was.

After process_incoming_migration_co and process_incoming_migration_bh, migration/migration.c.  A
stream that cannot be read ends the program, as it does QEMU's: there is no machine to go on with.
"""

import asyncio
import os
from typing import TYPE_CHECKING

from blockemu.activation import activate_all
from blockemu.errors import QmpError
from blockemu.migration import wire
from blockemu.migration.aliases import Map, incoming
from blockemu.migration.bitmaps import ComingBitmaps
from blockemu.migration.channel import Way
from blockemu.migration.coming_blocks import ComingBlocks
from blockemu.migration.load import Answer, Load, Settings, Step, Work
from blockemu.migration.status import MOVES
from blockemu.migration.wire import Input
from blockemu.schema.migration import MigrationCapability as C
from blockemu.schema.migration import MigrationStatus as S
from blockemu.schema.run_state import RunState

if TYPE_CHECKING:
    from blockemu.migration.manager import Manager


class Coming:
    """The one migration that a program can be the target of."""

    def __init__(self, manager: "Manager") -> None:
        self._manager = manager
        self._emu = manager.emu
        self.status = S.NONE
        self.channel: Way | None = None
        self.bitmaps = ComingBitmaps(self._emu.graph, self._aliases, self._manager.report)
        emu = self._emu
        self.blocks = ComingBlocks(emu.graph, self._manager.report, emu.warn, emu.stdout)
        self._loading: Load | None = None
        self._answers = False

    def _aliases(self) -> Map | None:
        mapping = self._manager.parameters.values.block_bitmap_mapping
        return incoming(mapping) if mapping is not None else None

    def move(self, old: S, new: S) -> None:
        """Go from one status to another, unless it is not there any more."""
        if self.status is old:
            assert new in MOVES[old], (old, new)
            self.status = new
            self._manager.tell(new)

    async def run(self, channel: Way, first: bytes) -> None:
        """Read a stream, the first bytes of which have come, and start the machine."""
        self.channel = channel
        self.move(S.NONE, S.ACTIVE)
        capabilities = self._manager.capabilities
        source = Input(first)
        settings = Settings(
            self._emu.machine.type, C.POSTCOPY_RAM in capabilities, C.VALIDATE_UUID in capabilities
        )
        load = self._loading = Load(source, settings, self.bitmaps, self._manager.report)
        load.expect("block", 1, self.blocks.load)
        status = await self._drive(load, source, channel)
        if load.listening:
            await self._end_postcopy(load, status, channel)
        elif status < 0:
            self._manager.report(f"load of migration failed: {os.strerror(-status)}")
            self._fail(channel)
        else:
            await self._start(load)
            self.move(S.ACTIVE, S.COMPLETED)
            await self._close(channel, status)

    async def _drive(self, load: Load, source: Input, channel: Way) -> int:
        """Read what the loader wants, and do what it says."""
        reading = load.read()
        while True:
            try:
                step = next(reading)
            except StopIteration as e:
                status: int = e.value
                return status
            if step is None:
                if source.ended or source.available > 1 << 20:
                    await asyncio.sleep(0)  # it only lets others have their turn
                else:
                    source.feed(await channel.read())
            elif step is Step.OPEN_RETURN_PATH:
                self._answers = True
            elif step is Step.LISTEN:
                self.move(S.ACTIVE, S.POSTCOPY_ACTIVE)
            elif step is Step.RUN:
                await self._start(load)
            elif isinstance(step, Answer):
                await channel.write(step.data)
            elif isinstance(step, Work):
                step.status = await step.run()

    def _fail(self, channel: Way) -> None:
        self.move(self.status, S.FAILED)
        channel.close()
        self._emu.not_come()

    async def _end_postcopy(self, load: Load, status: int, channel: Way) -> None:
        """See to what is left once the machine runs (postcopy_ram_listen_thread)."""
        if status < 0:
            self.bitmaps.cancel()
            where = "postcopy_ram_listen_thread"
            capabilities = self._manager.capabilities
            lost = C.POSTCOPY_RAM not in capabilities and C.DIRTY_BITMAPS in capabilities
            if not (load.running and lost):
                self._manager.report(f"{where}: loadvm failed: {status}")
                self._fail(channel)
                return
            self._manager.report(
                f"{where}: loadvm failed during postcopy: {status}. All states are migrated except "
                "dirty bitmaps. Some dirty bitmaps may be lost, and present migrated dirty bitmaps "
                "are correctly migrated and valid."
            )
        self.move(S.POSTCOPY_ACTIVE, S.COMPLETED)
        await self._close(channel, status)

    async def _close(self, channel: Way, status: int) -> None:
        if self._answers:
            await channel.write(wire.reply(wire.REPLY_SHUT, int(status < 0)))
        channel.close()
        self._manager.stop_listening()

    async def _start(self, load: Load) -> None:
        """Take the images over and let the machine do what it did there."""
        machine = self._emu.machine
        await self.blocks.let_go()
        did = load.run_state
        runs = did in (None, RunState.RUNNING)
        late = C.LATE_BLOCK_ACTIVATE in self._manager.capabilities and not load.listening
        if not late or (machine.autostart and runs):
            try:
                await activate_all(self._emu.graph)
            except QmpError as e:
                self._manager.report(str(e))
                machine.autostart = False
        self.bitmaps.before_start()
        self._emu.graph.incoming = False
        if load.listening or runs:
            if machine.autostart:
                machine.resume()
            else:
                machine.state = RunState.PAUSED
        elif did is not None:
            machine.state = did
