"""A machine that leaves: from the first byte until the other side has it, or until it stays.

After migration_thread, migration_completion and postcopy_start, migration/migration.c.
"""

import asyncio
import errno
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from blockemu.activation import activate_all, inactivate_all
from blockemu.errors import QmpError
from blockemu.migration import sections, wire
from blockemu.migration.blocks import LeavingBlocks
from blockemu.migration.channel import Way
from blockemu.migration.rate import Rate
from blockemu.migration.return_path import ReturnPath
from blockemu.migration.sending import NotSent, Sending
from blockemu.migration.status import MOVES, POSTCOPY, RUNNING
from blockemu.migration.tally import Tally
from blockemu.schema.migration import MigrationCapability as C
from blockemu.schema.migration import MigrationPass
from blockemu.schema.migration import MigrationStatus as S
from blockemu.schema.run_state import RunState

if TYPE_CHECKING:
    from blockemu.migration.manager import Manager


class _Stop(Exception):
    """The migration goes no further; its status says why."""


class Leaving:
    """One migration to another program."""

    def __init__(self, manager: "Manager", channel: Way | None = None) -> None:
        self._manager = manager
        self._emu = manager.emu
        self.channel = channel
        self.status = S.NONE
        self.error: QmpError | None = None
        self.start_postcopy = False
        self._sending: Sending | None = None
        self._wake: asyncio.Future[None] | None = None
        self._go_on = False  # the user's word in the pause before the switchover
        self._path: ReturnPath | None = None
        self._was_running = False
        self._inactive = False  # the images are the other side's
        self.tally = Tally(self._emu.clocks.realtime)
        loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = loop.create_future()

    # State

    def move(self, old: S, new: S) -> None:
        """Go from one status to another, unless it is not there any more (migrate_set_state)."""
        if self.status is not old:
            return
        assert new in MOVES[old], (old, new)
        self.status = new
        self._manager.tell(new)

    def begin(self) -> None:
        """Enter the first status."""
        self.tally.begin()
        self.move(S.NONE, S.SETUP)

    def look(self) -> None:
        """Look what the guest has written meanwhile; nobody has."""
        self.tally.passes += 1
        if C.EVENTS in self._manager.capabilities:
            self._emu.emit(MigrationPass(pass_=self.tally.passes))

    def fail(self, error: QmpError | None) -> None:
        """Give up before anything was sent (migrate_fd_error)."""
        self.move(S.SETUP, S.FAILED)
        self.move(S.CANCELLING, S.CANCELLED)
        self.error = error
        self.over.set_result(None)

    # The user's side

    def wake(self) -> None:
        """Let it look again at what the user wants."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def go_on(self) -> None:
        """End the pause before the switchover."""
        self._go_on = True
        self.wake()

    async def cancel(self) -> None:
        """Stop it, wherever it is (migrate_fd_cancel)."""
        if self.status not in RUNNING:
            return
        if self.status is not S.CANCELLING:
            self.move(self.status, S.CANCELLING)
        self.wake()
        if self._path is not None:
            self._path.shut_down()
        if self.channel is not None:
            self.channel.shut_down()
        if self._inactive:
            await self._take_back()

    async def _take_back(self) -> None:
        try:
            await activate_all(self._emu.graph)
        except QmpError as e:
            self._manager.report(str(e))
        else:
            self._inactive = False

    # The way

    async def run(self) -> None:
        """Go all the way."""
        assert self.channel is not None
        sending = self._sending = Sending(self._manager, self.channel)
        try:
            with suppress(_Stop):
                await self._go(sending)
        finally:
            await self._finish()

    async def _go(self, sending: Sending) -> None:
        await self._setup(sending)
        if self.status is not S.SETUP:
            raise _Stop
        self.tally.set_up()
        self.move(S.SETUP, S.ACTIVE)
        await self._check()
        if await self._iterate(sending):
            await self._switch_to_postcopy(sending)
            await self._send_bits(sending)
            await self._complete_postcopy(sending)
        else:
            await self._complete(sending)

    async def _check(self) -> None:
        """Stop if it was cancelled, or if nothing can be sent any more (migration_detect_error)."""
        assert self.channel is not None
        if self.status in (S.CANCELLING, S.CANCELLED):
            raise _Stop
        if self.channel.error is None:
            return
        if self.error is None:
            self.error = self.channel.error
        if self.status is S.POSTCOPY_ACTIVE:
            await self._pause()
            return
        self.move(self.status, S.FAILED)
        raise _Stop

    async def _setup(self, sending: Sending) -> None:
        """Prepare; what goes wrong is looked at when that is over."""
        if self._manager.capabilities.answers:
            self._path = ReturnPath(sending.channel)
        try:
            await sending.header()
            await sending.begin_blocks()
            self.look()
            await sending.begin_memory()
            await sending.begin_bitmaps()
        except NotSent as e:
            self.move(S.SETUP, S.ACTIVE)
            self.move(S.ACTIVE, S.FAILED)
            raise _Stop from e

    async def _iterate(self, sending: Sending) -> bool:
        """Send disks until the rest fits into a short pause, or the user wants postcopy.

        Bits of bitmaps are the last to go, so where there is nothing else nothing is sent
        meanwhile.  Returns whether it is postcopy (migration_iteration_run).
        """
        rate = sending.rate
        while sending.pending:
            values = self._manager.parameters.values
            rate.allow(values.max_bandwidth or 0)
            blocks = sending.pending_blocks
            speed = rate.measured if blocks else values.max_bandwidth or 0
            fits = speed * (values.downtime_limit or 0) // 1000
            if self.start_postcopy and not sending.first_pass and blocks <= fits:
                return True
            if rate.windows and not sending.first_pass and sending.pending < fits:
                self.look()
                return False
            if blocks:
                await self._send_some(sending)
            await (self._sleep(rate.left) if rate.exceeded or not blocks else asyncio.sleep(0))
            rate.turn()
            await self._check()
        return False

    async def _send_some(self, sending: Sending) -> None:
        try:
            await sending.some_blocks()
        except NotSent as e:
            self.move(S.ACTIVE, S.FAILED)
            raise _Stop from e

    async def _sleep(self, nanoseconds: int | None) -> None:
        """Wait for a time, or until the user has something to say."""
        self._wake = asyncio.get_running_loop().create_future()
        cancel = None
        if nanoseconds is not None:
            cancel = self._emu.clocks.realtime.timer(nanoseconds, self.wake)
        try:
            await self._wake
        finally:
            self._wake = None
            if cancel is not None:
                cancel()

    # The switchover

    async def _stop_machine(self) -> str:
        """Stop the machine; return what it did."""
        machine = self._emu.machine
        doing = machine.state.value
        assert self.channel is not None
        self.tally.stop(self.channel.sent)
        await self._emu.force_state(RunState.FINISH_MIGRATE)
        return doing

    async def _maybe_pause(self, new: S) -> None:
        """Wait for the user before the images are given away, if that is wanted."""
        if C.PAUSE_BEFORE_SWITCHOVER not in self._manager.capabilities:
            return
        if self.status is not S.CANCELLING:
            self._go_on = False
            self.move(S.ACTIVE, S.PRE_SWITCHOVER)
            while self.status is S.PRE_SWITCHOVER and not self._go_on:
                await self._sleep(None)
            self.move(S.PRE_SWITCHOVER, new)
        if self.status is not new:
            raise _Stop

    async def _complete(self, sending: Sending) -> None:
        """Send the rest while the machine stands still."""
        try:
            await self._send_rest(sending)
        except (_Stop, NotSent) as e:
            if self._inactive:
                await self._take_back()
            if self.status in (S.ACTIVE, S.DEVICE):
                self.move(self.status, S.FAILED)
            raise _Stop from e
        self.move(self.status, S.COMPLETED)

    async def _send_rest(self, sending: Sending) -> None:
        doing = await self._stop_machine()
        self._was_running = doing == RunState.RUNNING.value
        await self._maybe_pause(S.DEVICE)
        await sending.last_blocks()
        self.look()
        await sending.last_memory()
        await sending.all_bits()
        await sending.send(sending.devices(doing))
        await self._give_away()
        await sending.send(bytes([wire.EOF]) + wire.description(sections.DESCRIPTION))
        self._stop_if_lost()
        await self._end_return_path()
        self._stop_if_lost()

    def _stop_if_lost(self) -> None:
        """Stop if it was cancelled, or if the other side cannot have got all."""
        assert self.channel is not None
        self.error = self.error or self.channel.error
        if self.status is S.CANCELLING or self.channel.error is not None:
            raise _Stop

    async def _give_away(self) -> None:
        """Give the images to the other side, before it knows that it may use them."""
        self._stop_if_lost()
        self._inactive = True
        try:
            await inactivate_all(self._emu.graph)
        except OSError as e:
            where = "qemu_savevm_state_complete_precopy_non_iterable"
            code = e.errno or errno.EIO
            self._manager.report(f"{where}: bdrv_inactivate_all() failed ({-code})")
            raise _Stop from e

    async def _end_return_path(self) -> None:
        """Wait until the other side says that it has all."""
        if self._path is not None and not await self._path.finished():
            raise _Stop

    # Postcopy: the machine runs there before all bitmaps are

    async def _switch_to_postcopy(self, sending: Sending) -> None:
        pauses = C.PAUSE_BEFORE_SWITCHOVER in self._manager.capabilities
        if not pauses:
            self.move(S.ACTIVE, S.POSTCOPY_ACTIVE)
        given = False
        try:
            doing = await self._stop_machine()
            await self._maybe_pause(S.POSTCOPY_ACTIVE)
            try:
                await inactivate_all(self._emu.graph)
            except OSError as e:
                raise _Stop from e
            given = True
            await sending.last_blocks()
            if C.POSTCOPY_RAM not in self._manager.capabilities:
                await sending.last_memory()
            await sending.machine(doing)
            self.tally.go_on_there(sending.channel.sent)
            if sending.channel.error is not None:
                self._manager.report("postcopy_start: Migration stream errored (pre package)")
                raise _Stop
        except (_Stop, NotSent) as e:
            if self.status is S.POSTCOPY_ACTIVE:
                self.move(S.POSTCOPY_ACTIVE, S.FAILED)
                self.error = self.error or (self.channel.error if self.channel else None)
            if given:
                await self._take_back()
            self._manager.report("migration_iteration_run: postcopy failed to start")
            raise _Stop from e

    async def _send_bits(self, sending: Sending) -> None:
        """Send bits, as fast as that is allowed now (dirty_bitmap_save_iterate)."""
        sending.rate.allow(self._manager.parameters.values.max_postcopy_bandwidth or 0)
        async with aclosing(sending.parts_of_bits()) as parts:
            async for _ in parts:
                await asyncio.sleep(0)
                await self._check()
                await self._keep_to(sending.rate)

    async def _keep_to(self, rate: Rate) -> None:
        """Wait until more may be sent; how much that is may change meanwhile."""
        rate.turn()
        while True:
            rate.allow(self._manager.parameters.values.max_postcopy_bandwidth or 0)
            if not rate.exceeded:
                return
            await self._sleep(rate.left)
            rate.turn()
            await self._check()

    async def _complete_postcopy(self, sending: Sending) -> None:
        if C.POSTCOPY_RAM in self._manager.capabilities:
            await sending.last_memory()
        await sending.last_bits()
        await sending.send(bytes([wire.EOF]))
        try:
            await self._end_return_path()
        except _Stop:
            self.move(S.POSTCOPY_ACTIVE, S.FAILED)
            raise
        await self._check()
        self.move(S.POSTCOPY_ACTIVE, S.COMPLETED)

    async def _pause(self) -> None:
        """Wait for another way to the other side (postcopy_pause)."""
        assert self.channel is not None
        self.move(S.POSTCOPY_ACTIVE, S.POSTCOPY_PAUSED)
        self.channel.close()
        self._manager.report("Detected IO failure for postcopy. Migration paused.")
        while self.status in (S.POSTCOPY_PAUSED, S.POSTCOPY_RECOVER):
            await self._sleep(None)
        raise _Stop

    async def recover(self, channel: Way) -> None:
        """Ask by another way whether the other side is ready (postcopy_do_resume)."""
        if self.status is not S.POSTCOPY_PAUSED:
            channel.close()
            return
        self.channel = channel
        self.move(S.POSTCOPY_PAUSED, S.POSTCOPY_RECOVER)
        await channel.write(wire.command(wire.POSTCOPY_RESUME))

    # The end

    async def _finish(self) -> None:
        """Go on here, unless the machine has left (migration_iteration_finish)."""
        machine = self._emu.machine
        if self._sending is not None:
            await self._sending.let_go()
        if self.status is S.COMPLETED:
            self.tally.end()
            machine.state = RunState.POSTMIGRATE
        elif self._was_running and machine.state is RunState.FINISH_MIGRATE:
            machine.resume()
        elif machine.state is RunState.FINISH_MIGRATE:
            machine.state = RunState.POSTMIGRATE
        if self._path is not None:
            self._path.close()
        if self.channel is not None:
            if self.status is S.COMPLETED:
                await self.channel.finish()
            else:
                self.channel.close()
        self.move(S.CANCELLING, S.CANCELLED)
        if self.error is not None:
            self._manager.report(str(self.error))
        self._manager.drop_block_options()
        if not self.over.done():
            self.over.set_result(None)

    @property
    def blocks(self) -> LeavingBlocks | None:
        """The disks that go along."""
        return self._sending.blocks if self._sending is not None else None

    @property
    def in_postcopy(self) -> bool:
        """Whether the machine runs there, and not all is there."""
        return self.status in POSTCOPY
