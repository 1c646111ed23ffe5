"""Migration as commands see it: one machine, which may leave once at a time and come once."""

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from blockemu.connecting import connect
from blockemu.errors import InvalidParameterValue, QmpError
from blockemu.exports.listening import listen
from blockemu.migration.capabilities import Capabilities
from blockemu.migration.channel import Channel, Way, from_command, from_descriptor, from_socket
from blockemu.migration.incoming import Coming
from blockemu.migration.outgoing import Leaving
from blockemu.migration.parameters import Parameters
from blockemu.migration.savevm import MachineSnapshots
from blockemu.migration.status import RUNNING, TIMED
from blockemu.migration.uris import Command, Descriptor, NoProtocol, NoRdma, Place, Socket, parse
from blockemu.schema.migration import (
    MigrateSetParameters,
    Migration,
    MigrationCapabilityStatus,
    MigrationInfo,
)
from blockemu.schema.migration import MigrationCapability as C
from blockemu.schema.migration import MigrationStatus as S
from blockemu.schema.run_state import RunState
from blockemu.schema.sockets import SocketAddress, SocketAddressInet, SocketAddressUnix
from blockemu.tls.credentials import credentials

if TYPE_CHECKING:
    from blockemu.emulator import Emulator

TakeFd = Callable[[str], int]  # takes a descriptor that a client has named


class InProgress(QmpError):
    """One at a time."""

    template = "There's a migration process in progress"


class NothingPaused(QmpError):
    """There is nothing to go on with."""

    template = "Cannot resume if there is no paused migration"


class ReleasedRam(QmpError):
    """What was sent is not there to be sent again."""

    template = "Postcopy recovery cannot work when release-ram capability is set"


class Waiting(QmpError):
    """The machine has not come yet."""

    template = "Guest is waiting for an incoming migration"


class HasLeft(QmpError):
    """The machine is elsewhere."""

    template = "Can't migrate the vm that was paused due to previous migration"


class DisksTwice(QmpError):
    """Whether disks go along is said by a capability already."""

    template = "Command options are incompatible with current migration capabilities"


class Blocked(QmpError):
    """(format, node): another machine would not see what this one has written."""

    template = "The {} format used by node '{}' does not support live migration"


class NoPostcopy(QmpError):
    """The other side must know in time."""

    template = "Enable postcopy with migrate_set_capability before the start of migration"


class NothingStarted(QmpError):
    """There is nothing to be continued."""

    template = "Postcopy must be started after migration has been started"


class UnexpectedState(QmpError):
    """(status)."""

    template = "Migration not in expected state: {}"


class AlreadyStarted(QmpError):
    """A machine comes once."""

    template = "The incoming migration has already been started"


class NotIncoming(QmpError):
    """There is a machine already."""

    template = "'-incoming' was not specified on the command line"


class NotPaused(QmpError):
    """There is nothing to be recovered."""

    template = "Migrate recover can only be run when postcopy is paused."


class NotInPostcopy(QmpError):
    """Only then both sides could go on later."""

    template = "migrate-pause is currently only supported during postcopy-active state"


class Manager:
    """Capabilities, parameters, and the migrations of one machine."""

    def __init__(self, emu: "Emulator") -> None:
        self.emu = emu
        self.capabilities = Capabilities()
        self.parameters = Parameters()
        self._listeners: list[socket.socket] = []
        self._addresses: list[SocketAddress] = []
        self._started = False  # something has been listened for
        self._multi_channel = True
        self._block_for_once = False  # a command asked for disks to go along
        self.snapshots = MachineSnapshots(emu)
        self.leaving = Leaving(self)
        self.coming = Coming(self)

    def report(self, text: str) -> None:
        """Tell the user what no command does: with the program's name."""
        self.emu.warn(f"{self.emu.reporter}: {text}" if self.emu.reporter else text)

    def tell(self, status: S) -> None:
        """Tell of a status, if that is wanted."""
        if C.EVENTS in self.capabilities:
            self.emu.emit(Migration(status=status))

    # Settings

    def set_capabilities(self, wanted: list[MigrationCapabilityStatus]) -> None:
        """Switch capabilities on or off."""
        if self.leaving.status in RUNNING:
            raise InProgress
        single = self.emu.machine.incoming and not self._multi_channel
        values = self.parameters.values
        plain = values.multifd_compression == "none" and not values.tls_creds
        self.capabilities.change(wanted, single=single, plain=plain)

    def set_parameters(self, wanted: MigrateSetParameters) -> None:
        """Change parameters."""
        self.parameters.change(wanted, zero_copy=C.ZERO_COPY_SEND in self.capabilities)
        self.leaving.wake()

    # Leaving

    def blockers(self) -> list[Blocked]:
        """Return why the machine cannot leave, the oldest reason first."""
        nodes = self.emu.graph.nodes.values()
        return [Blocked(n.driver, n.name) for n in nodes if not n.migratable]

    def start(
        self, uri: str, take_fd: TakeFd, *, block: bool = False, incremental: bool = False
    ) -> None:
        """Begin to send the machine; ``block``: disks, too, or what they have of their own.

        Raises:
            QmpError: it cannot leave, or not by this way.

        """
        if self.leaving.status in RUNNING:
            raise InProgress
        if self.emu.machine.incoming:
            raise Waiting
        if self.emu.machine.state is RunState.POSTMIGRATE:
            raise HasLeft
        blockers = self.blockers()
        if blockers:
            raise blockers[-1]
        with_disks = block or incremental
        if with_disks:
            if C.BLOCK in self.capabilities or self.parameters.values.block_incremental:
                raise DisksTwice
            self._set_block(True, incremental=incremental)
        leaving = self.leaving = Leaving(self)
        self._block_for_once |= with_disks
        leaving.begin()
        try:
            place = self._parse(uri)
            if place is not None:
                leaving.channel = self._open(place, take_fd, reading=False)
        except QmpError as e:
            leaving.fail(e)
            raise
        if place is None:
            leaving.fail(None)
            self.drop_block_options()
            raise InvalidParameterValue("uri", "a valid migration protocol")
        if not isinstance(place, Socket) and not self._can_encrypt(leaving):
            return
        self.emu.keep(self._run(leaving, place))

    def _set_block(self, block: bool, *, incremental: bool) -> None:
        wanted = MigrationCapabilityStatus(capability=C.BLOCK, state=block)
        self.capabilities.change([wanted])
        self.parameters.set_block_incremental(incremental)

    def drop_block_options(self) -> None:
        """Switch off what one command has switched on (block_cleanup_parameters)."""
        if self._block_for_once:
            self._block_for_once = False
            self._set_block(False, incremental=False)

    def _can_encrypt(self, leaving: Leaving) -> bool:
        """Look for credentials at once where QEMU does: while the command is under way."""
        name = self.parameters.values.tls_creds
        if name:
            try:
                credentials(self.emu.objects.find, name, "client")
            except QmpError as e:
                self._give_up(leaving, e, self.emu.warn)
                return False
        return True

    def _give_up(self, leaving: Leaving, error: QmpError, report: Callable[[str], None]) -> None:
        leaving.fail(error)
        if leaving.channel is not None:
            leaving.channel.close()
        report(str(error))
        self.drop_block_options()

    def _parse(self, uri: str, *, coming: bool = False) -> Place | None:
        try:
            return parse(uri, coming=coming)
        except NoRdma as e:
            self.emu.warn(str(e))
            raise

    def _open(self, place: Place, take_fd: TakeFd, *, reading: bool) -> Channel | None:
        """Return what needs no waiting."""
        if isinstance(place, Command):
            return from_command(place.line)
        if isinstance(place, Descriptor):
            return from_descriptor(take_fd(place.name), reading=reading)
        return None

    async def _run(self, leaving: Leaving, place: Place) -> None:
        try:
            if isinstance(place, Socket):
                leaving.channel = from_socket(await connect(place.address, self.emu.pool))
            assert isinstance(leaving.channel, Channel)
            leaving.channel = await self._encrypted(leaving.channel, place)
        except QmpError as e:
            self._give_up(leaving, e, self.report)
        else:
            await leaving.run()

    async def _encrypted(self, channel: Channel, place: Place) -> Way:
        """Encrypt what is sent, if that is wanted (migration_channel_connect)."""
        values = self.parameters.values
        if not values.tls_creds:
            return channel
        from blockemu.migration.encrypted import towards  # start-up: few need it

        hostname = values.tls_hostname or None
        if hostname is None and isinstance(place, Socket):
            hostname = getattr(place.address, "host", None)
        return await towards(channel, values.tls_creds, self.emu.objects.find, hostname)

    def resume(self, uri: str, take_fd: TakeFd) -> None:
        """Go on by another way with a migration that has lost its own.

        The other side has to say that it is ready, and has to have memory for that: one that waits
        for bitmaps alone has dropped them, and says nothing.

        Raises:
            QmpError: there is none, or not by this way.

        """
        leaving = self.leaving
        if leaving.status is not S.POSTCOPY_PAUSED:
            raise NothingPaused
        if C.RELEASE_RAM in self.capabilities:
            raise ReleasedRam
        place = self._parse(uri)
        if place is None:
            raise InvalidParameterValue("uri", "a valid migration protocol")
        self.emu.keep(self._recover(leaving, place, self._open(place, take_fd, reading=False)))

    async def _recover(self, leaving: Leaving, place: Place, channel: Channel | None) -> None:
        try:
            if isinstance(place, Socket):
                channel = from_socket(await connect(place.address, self.emu.pool))
            assert channel is not None
            way = await self._encrypted(channel, place)
        except QmpError as e:
            if channel is not None:
                channel.close()
            self.report(str(e))
        else:
            await leaving.recover(way)

    def start_postcopy(self) -> None:
        """Let the machine run there as soon as it can."""
        if not self.capabilities.postcopy:
            raise NoPostcopy
        if self.leaving.status is S.NONE:
            raise NothingStarted
        self.leaving.start_postcopy = True
        self.leaving.wake()

    def go_on(self, status: S) -> None:
        """End a pause before the switchover."""
        if self.leaving.status is not status:
            raise UnexpectedState(self.leaving.status.value)
        self.leaving.go_on()

    async def cancel(self) -> None:
        """Stop what is under way."""
        await self.leaving.cancel()

    def pause(self) -> None:
        """Cut the way that a migration takes."""
        for side in (self.leaving, self.coming):
            if side.status is S.POSTCOPY_ACTIVE and side.channel is not None:
                side.channel.shut_down()
                return
        raise NotInPostcopy

    # Coming

    def start_incoming(self, uri: str, take_fd: TakeFd) -> None:
        """Wait for the machine.

        Raises:
            QmpError: there is one, or it cannot come by this way.

        """
        if self._started:
            raise AlreadyStarted
        if not self.emu.machine.incoming:
            raise NotIncoming
        self.wait_for(uri, take_fd)
        self._started = True

    def wait_for(self, uri: str, take_fd: TakeFd) -> None:
        """Wait for a stream (qemu_start_incoming_migration)."""
        self.emu.emit(Migration(status=S.SETUP))
        place = self._parse(uri, coming=True)
        if place is None:
            raise NoProtocol(uri)
        self._multi_channel = isinstance(place, Socket)
        channel = self._open(place, take_fd, reading=True)
        if channel is not None:
            self.emu.keep(self._come(channel))
            return
        assert isinstance(place, Socket)
        self._listeners = listen(place.address)
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            listener.setblocking(False)
            self._addresses.insert(0, _local(listener, place.address))
            loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        if self.coming.channel is not None:
            sock.close()
            where = "socket_accept_incoming_migration"
            self.report(f"{where}: Extra incoming migration connection; ignoring")
            return
        self.emu.keep(self._come(from_socket(sock)))

    async def _come(self, channel: Channel) -> None:
        """Read a stream.

        A pipe on which nothing comes does not count: QEMU hears of data, not of the end.
        """
        if self.parameters.values.tls_creds:
            await self._come_encrypted(channel)
            return
        self.coming.channel = channel
        first = b"" if channel.is_socket else await channel.read()
        if first or channel.is_socket:
            await self.coming.run(channel, first)

    async def _come_encrypted(self, channel: Channel) -> None:
        """Read a stream once it is known who sends it; another may come if that fails."""
        from blockemu.migration.encrypted import from_there  # start-up: few need it

        values = self.parameters.values
        try:
            encrypted = await from_there(
                channel, values.tls_creds or "", self.emu.objects.find, values.tls_authz or ""
            )
        except QmpError as e:
            self.report(str(e))
            channel.close()
            return
        if self.coming.channel is None:
            await self.coming.run(encrypted, b"")
        else:
            encrypted.close()

    def stop_listening(self) -> None:
        """Let nobody else in."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()
        self._addresses.clear()

    def recover(self) -> None:
        """Refuse to wait for the rest of a stream: who lost one has dropped its bitmaps."""
        raise NotPaused

    # What queries tell

    def info(self) -> MigrationInfo:
        """Describe what is under way, or was last."""
        leaving, coming = self.leaving, self.coming
        told: dict[str, Any] = {}
        if self._addresses:
            told["socket_address"] = list(self._addresses)
        if coming.status is not S.NONE:
            told["status"] = coming.status
        reasons = [str(each) for each in self.blockers()]
        if reasons:
            told["blocked_reasons"] = reasons
        if leaving.status is S.NONE:
            return MigrationInfo(**told)
        told["status"] = leaving.status
        if leaving.status in TIMED:
            tally = leaving.tally
            told |= {"setup_time": tally.setup_time, "total_time": tally.total_time}
            told["ram"] = tally.stats(leaving.channel.sent if leaving.channel is not None else 0)
            if leaving.blocks:
                told["disk"] = leaving.blocks.stats()
            if leaving.status is S.COMPLETED:
                told["downtime"] = tally.downtime
            else:
                told["expected_downtime"] = self.parameters.values.downtime_limit
        if leaving.status is S.FAILED and leaving.error is not None:
            told["error_desc"] = str(leaving.error)
        return MigrationInfo(**told)

    # The end

    async def close(self) -> None:
        """Stop all, and wait until what was sent has arrived (migration_shutdown)."""
        leaving = self.leaving
        if leaving.status is not S.NONE:
            await leaving.cancel()
            await leaving.over
        self.coming.bitmaps.cancel()
        if self.coming.channel is not None:
            self.coming.channel.shut_down()
        self.stop_listening()


def _local(listener: socket.socket, wanted: SocketAddress) -> SocketAddress:
    """Return where others may connect to."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return SocketAddressUnix(path=name if isinstance(name, str) else "")
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        return SocketAddressInet(
            host=name[0],
            port=str(name[1]),
            ipv4=listener.family == socket.AF_INET or None,
            ipv6=listener.family == socket.AF_INET6 or None,
        )
    return wanted
