"""A machine that leaves: from the first byte until the other side has it, or until it stays.

After migration_thread, migration_completion and postcopy_start, migration/migration.c.
"""

import asyncio
import errno
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from blockemu.activation import activate_all, inactivate_all
from blockemu.errors import QmpError
from blockemu.migration import sections, wire
from blockemu.migration.aliases import outgoing
from blockemu.migration.bitmap_wire import END
from blockemu.migration.bitmaps import LeavingBitmaps
from blockemu.migration.channel import Channel
from blockemu.migration.return_path import ReturnPath
from blockemu.migration.sections import BITMAPS, RAM
from blockemu.migration.status import MOVES, POSTCOPY, RUNNING
from blockemu.schema.migration import MigrationCapability as C
from blockemu.schema.migration import MigrationPass, MigrationStats
from blockemu.schema.migration import MigrationStatus as S
from blockemu.schema.run_state import RunState

if TYPE_CHECKING:
    from blockemu.migration.manager import Manager

BATCH: Final = 512  # chunks of bits that are sent at once
_DELAY: Final = 100_000_000  # nanoseconds until it is worked out how much fits into a short pause
_MSEC: Final = 1_000_000


class _Stop(Exception):
    """The migration goes no further; its status says why."""


class Leaving:
    """One migration to another program."""

    def __init__(self, manager: "Manager", channel: Channel | None = None) -> None:
        self._manager = manager
        self._emu = manager.emu
        self.channel = channel
        self.status = S.NONE
        self.error: QmpError | None = None
        self.start_postcopy = False
        self.bitmaps: LeavingBitmaps | None = None
        self._wake: asyncio.Future[None] | None = None
        self._go_on = False  # the user's word in the pause before the switchover
        self._path: ReturnPath | None = None
        self._was_running = False
        self._inactive = False  # the images are the other side's
        self._passes = 0
        self._before_stop = self._stopped = 0  # bytes sent
        self._began = self._set_up = self._stopped_at = self._ended = 0  # nanoseconds
        self._downtime: int | None = None
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
        self._began = self._now()
        self.move(S.NONE, S.SETUP)

    def _now(self) -> int:
        return self._emu.clocks.realtime.now()

    def look(self) -> None:
        """Look what the guest has written meanwhile; nobody has."""
        self._passes += 1
        if C.EVENTS in self._manager.capabilities:
            self._emu.emit(MigrationPass(pass_=self._passes))

    def fail(self, error: QmpError | None) -> None:
        """Give up before anything was sent (migrate_fd_error)."""
        self.move(S.SETUP, S.FAILED)
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
        try:
            with suppress(_Stop):
                await self._go()
        finally:
            await self._finish()

    async def _go(self) -> None:
        await self._setup()
        if self.status is not S.SETUP:
            raise _Stop
        self._set_up = self._now() - self._began
        self.move(S.SETUP, S.ACTIVE)
        await self._check()
        if await self._wait_for_postcopy():
            await self._switch_to_postcopy()
            await self._send_bits()
            await self._complete_postcopy()
        else:
            await self._complete()

    async def _send(self, data: bytes) -> None:
        assert self.channel is not None
        await self.channel.write(data)

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

    async def _setup(self) -> None:
        capabilities = self._manager.capabilities
        await self._send(wire.header(self._emu.machine.type))
        if C.POSTCOPY_RAM in capabilities or C.RETURN_PATH in capabilities:
            assert self.channel is not None
            self._path = ReturnPath(self.channel)
            await self._send(wire.command(wire.OPEN_RETURN_PATH))
            await self._send(wire.command(wire.PING, (1).to_bytes(4, "big")))
        if capabilities.postcopy:
            sizes = b""
            if C.POSTCOPY_RAM in capabilities:
                sizes = bytes(8) + wire.PAGE.to_bytes(8, "big")
            await self._send(wire.command(wire.POSTCOPY_ADVISE, sizes))
        self.look()
        await self._section(wire.SECTION_START, RAM, wire.ram(first=True), "ram", 4)
        if C.DIRTY_BITMAPS not in capabilities:
            return
        mapping = self._manager.parameters.values.block_bitmap_mapping
        aliases = outgoing(mapping) if mapping is not None else None
        self.bitmaps = LeavingBitmaps(self._emu.graph, aliases)
        try:
            self.bitmaps.collect()
        except QmpError as e:
            self._manager.report(str(e))
            self.bitmaps = None
            await self._section(wire.SECTION_START, BITMAPS, b"", "dirty-bitmap", 1)
            self.move(S.SETUP, S.ACTIVE)
            self.move(S.ACTIVE, S.FAILED)
            raise _Stop from e
        data = self.bitmaps.starts() + bytes([END])
        await self._section(wire.SECTION_START, BITMAPS, data, "dirty-bitmap", 1)

    async def _section(
        self, kind: int, ident: int, data: bytes, name: str = "", version: int = 0
    ) -> None:
        await self._send(sections.section(kind, ident, data, name, version))

    async def _wait_for_postcopy(self) -> bool:
        """Wait until the rest fits into a short pause, or else until the user wants postcopy.

        Nothing is sent meanwhile: bits are the last to go.  Returns whether it is postcopy.
        """
        values = self._manager.parameters.values
        waited = False
        while self.bitmaps:
            if self.start_postcopy:
                return True
            fits = (values.max_bandwidth or 0) * (values.downtime_limit or 0) // 1000
            if waited and self.bitmaps.pending < fits:
                self.look()
                return False
            await self._sleep(_DELAY)
            waited = True
            values = self._manager.parameters.values
            await self._check()
        return False

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
        self._stopped_at = self._now()
        assert self.channel is not None
        self._before_stop = self.channel.sent
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

    async def _complete(self) -> None:
        """Send the rest while the machine stands still."""
        try:
            await self._send_rest()
        except _Stop:
            if self._inactive:
                await self._take_back()
            if self.status in (S.ACTIVE, S.DEVICE):
                self.move(self.status, S.FAILED)
            raise
        self.move(self.status, S.COMPLETED)

    async def _send_rest(self) -> None:
        doing = await self._stop_machine()
        self._was_running = doing == RunState.RUNNING.value
        await self._maybe_pause(S.DEVICE)
        self.look()
        await self._section(wire.SECTION_END, RAM, wire.ram())
        if self.bitmaps is not None:
            await self._send_bitmaps_whole()
        await self._send(self._devices(doing))
        await self._give_away()
        await self._send(bytes([wire.EOF]) + wire.description(sections.DESCRIPTION))
        self._stop_if_lost()
        await self._end_return_path()
        self._stop_if_lost()

    def _stop_if_lost(self) -> None:
        """Stop if it was cancelled, or if the other side cannot have got all."""
        assert self.channel is not None
        self.error = self.error or self.channel.error
        if self.status is S.CANCELLING or self.channel.error is not None:
            raise _Stop

    async def _send_bitmaps_whole(self) -> None:
        assert self.bitmaps is not None
        await self._send(wire.proceed(wire.SECTION_END, BITMAPS))
        for part in self.bitmaps.bits(BATCH):
            await self._send(part)
            await asyncio.sleep(0)
        await self._send(self.bitmaps.completes() + bytes([END]) + wire.footer(BITMAPS))
        await self.bitmaps.let_go()

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

    def _devices(self, doing: str) -> bytes:
        return sections.devices(self._emu.clocks.virtual.now(), doing)

    async def _end_return_path(self) -> None:
        """Wait until the other side says that it has all."""
        if self._path is not None and not await self._path.finished():
            raise _Stop

    # Postcopy: the machine runs there before all bitmaps are

    async def _switch_to_postcopy(self) -> None:
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
            if C.POSTCOPY_RAM not in self._manager.capabilities:
                await self._section(wire.SECTION_END, RAM, wire.ram())
            package = wire.command(wire.POSTCOPY_LISTEN)
            package += self._devices(doing) + wire.command(wire.POSTCOPY_RUN)
            await self._send(wire.packaged(package))
            self._downtime = (self._now() - self._stopped_at) // _MSEC
            assert self.channel is not None
            self._stopped = self.channel.sent
            if self.channel.error is not None:
                self._manager.report("postcopy_start: Migration stream errored (pre package)")
                raise _Stop
        except _Stop:
            if self.status is S.POSTCOPY_ACTIVE:
                self.move(S.POSTCOPY_ACTIVE, S.FAILED)
                self.error = self.error or (self.channel.error if self.channel else None)
            if given:
                await self._take_back()
            self._manager.report("migration_iteration_run: postcopy failed to start")
            raise

    async def _send_bits(self) -> None:
        assert self.bitmaps is not None
        ident = wire.proceed(wire.SECTION_PART, BITMAPS)
        for part in self.bitmaps.bits(BATCH):
            await self._send(ident + part + bytes([END]) + wire.footer(BITMAPS))
            await asyncio.sleep(0)
            await self._check()

    async def _complete_postcopy(self) -> None:
        assert self.bitmaps is not None
        if C.POSTCOPY_RAM in self._manager.capabilities:
            await self._section(wire.SECTION_END, RAM, wire.ram())
        data = self.bitmaps.completes() + bytes([END])
        await self._section(wire.SECTION_END, BITMAPS, data)
        await self._send(bytes([wire.EOF]))
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
        while self.status is S.POSTCOPY_PAUSED:
            await self._sleep(None)
        raise _Stop

    # The end

    async def _finish(self) -> None:
        """Go on here, unless the machine has left (migration_iteration_finish)."""
        machine = self._emu.machine
        if self.bitmaps is not None:
            await self.bitmaps.let_go()
        if self.status is S.COMPLETED:
            self._ended = self._now()
            if self._downtime is None:
                self._downtime = (self._ended - self._stopped_at) // _MSEC
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
        if not self.over.done():
            self.over.set_result(None)

    # What queries tell

    @property
    def setup_time(self) -> int:
        """Milliseconds that the preparation took."""
        return self._set_up // _MSEC

    @property
    def total_time(self) -> int:
        """Milliseconds since the begin, or from there to the end."""
        return ((self._ended or self._now()) - self._began) // _MSEC

    @property
    def downtime(self) -> int:
        """Milliseconds that the machine stood still."""
        return self._downtime or 0

    def stats(self) -> MigrationStats:
        """Count the bytes sent, as if they had been memory."""
        sent = self.channel.sent if self.channel is not None else 0
        before = self._before_stop or sent
        stopped = self._stopped or sent
        seconds = max(self.total_time, 1) / 1000
        return MigrationStats(
            transferred=sent,
            remaining=0,
            total=0,
            duplicate=0,
            skipped=0,
            normal=0,
            normal_bytes=0,
            dirty_pages_rate=0,
            mbps=sent * 8 / seconds / 1e6,
            dirty_sync_count=self._passes,
            postcopy_requests=0,
            page_size=wire.PAGE,
            multifd_bytes=0,
            pages_per_second=0,
            precopy_bytes=before,
            downtime_bytes=stopped - before,
            postcopy_bytes=sent - stopped,
            dirty_sync_missed_zero_copy=0,
        )

    @property
    def in_postcopy(self) -> bool:
        """Whether the machine runs there, and not all is there."""
        return self.status in POSTCOPY
