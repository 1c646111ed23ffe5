"""A daemon: an emulator and the monitors by which clients reach it.

The emulator and the table of commands are made when the first command comes, so that nothing of
them stands between start-up and the greeting.
"""

import asyncio
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from blockemu.chardevs import Chardev, Chardevs, Plug, SocketChardev
from blockemu.host.sockets import InetAddress, UnixAddress
from blockemu.logs import Log
from blockemu.qmp_server.address import Address
from blockemu.qmp_server.profile import ALL, Profile
from blockemu.qmp_server.transport import Connection, Monitor, Server, make_dispatcher

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from blockemu.clocks import Clocks
    from blockemu.emulator import Emulator, Listener
    from blockemu.qmp_server.dispatch import Registry
    from blockemu.qmp_server.events import EventHub


class MonitorContext:
    """What commands get (``blockemu.commands.context.Context``): one for each client."""

    def __init__(self, daemon: "Daemon", connection: Connection, named_fds: dict[str, int]) -> None:
        self._daemon = daemon
        self._connection = connection
        self.named_fds = named_fds

    @property
    def emu(self) -> "Emulator":
        """The emulator."""
        return self._daemon.emu

    @property
    def monitor(self) -> Monitor:
        """The monitor that the command came by."""
        return self._connection.monitor

    @property
    def chardevs(self) -> Chardevs:
        """The chardevs."""
        return self._daemon.chardevs

    @property
    def registry(self) -> "Registry":
        """The commands."""
        return self._daemon.registry

    def take_fd(self) -> int | None:
        """Take the descriptor that the client sent last."""
        return self._connection.take_fd()

    def shut_down(self, reason: str) -> None:
        """End the daemon."""
        self._daemon.shut_down(reason)


class Daemon:
    """Make it, put monitors on it, await ``stopped``, ``close`` it.

    ``announces_shutdown``: send SHUTDOWN, as a machine does and a storage daemon does not.
    """

    def __init__(
        self,
        *,
        profile: Profile = ALL,
        chardevs: Chardevs | None = None,
        clocks: "Clocks | None" = None,
        log: Log | None = None,
        self_check: bool = False,
        plans: bool = True,
        announces_shutdown: bool = False,
    ) -> None:
        self.profile = profile
        self.chardevs = chardevs or Chardevs()
        self.log = log or Log()
        self.stopped = asyncio.Event()
        self.program = ""  # its name, for what is reported at the end: outside of any command
        self._clocks = clocks
        self._self_check = self_check
        self.status = 0  # the program's when it ends
        self.faults: list[str] = []  # that --self-check found
        self._plans = plans
        self._announces_shutdown = announces_shutdown
        self._dispatcher = make_dispatcher()
        self._servers: list[Server] = []
        self._named_fds: list[dict[str, int]] = []
        self._clients = 0
        self.die: Callable[[int], None] | None = None  # ends the whole program at once
        self.loaded: Callable[[], None] | None = None  # hears of commands that were imported
        self._emu: Emulator | None = None
        self._hub: EventHub | None = None
        self._registry: Registry | None = None

    # What is made late

    @property
    def emu(self) -> "Emulator":
        """The emulator, made when first asked for."""
        if self._emu is None:
            self._emu = self._make_emulator()
        return self._emu

    def _make_emulator(self) -> "Emulator":
        from blockemu.buffers import keep_freed_memory  # start-up
        from blockemu.emulator import Emulator
        from blockemu.qmp_server.events import EventHub

        keep_freed_memory()
        emu = Emulator(profile=self.profile, clocks=self._clocks)
        emu.graph.plans = self._plans
        emu.log = self.log.info
        emu.is_machine = self._announces_shutdown
        emu.die = self.die
        emu.qom.root.add_child("chardevs", self.chardevs.container)
        emu.fdsets.monitors = self._clients
        self._dispatcher.hold = self._checked_hold if self._self_check else emu.jobs.hold
        realtime = emu.clocks.realtime
        hub = EventHub(
            lambda: time.time_ns() // 1000,
            realtime.timer,
            self.profile,
            self_check=self._self_check,
        )
        emu.listeners.append(cast("Listener", hub.emit))  # all that is emitted is an event
        self._hub = hub
        for server in self._servers:
            server.monitor.hub = hub
            if server.connection is not None:
                hub.add(server.connection)
        return emu

    def _checked_hold(self) -> "Coroutine[Any, Any, None] | None":
        """Look, between two steps, whether all is consistent (``--self-check``)."""
        hold = self.emu.jobs.hold()
        if hold is None:
            from blockemu.consistency import faults  # start-up

            for fault in faults(self.emu.graph, self.emu.jobs):
                self.faults.append(fault)
                self.log.error("self-check", fault=fault)
        return hold

    @property
    def registry(self) -> "Registry":
        """The commands, loaded when first asked for."""
        if self._registry is None:
            from blockemu.commands import load  # start-up

            self._registry = load(self._imported)
            if self.log.enabled("debug"):
                _log_commands(self._registry, self.log)
            assert self.emu  # whoever asks is about to run a command
        return self._registry

    def _imported(self) -> None:
        if self.loaded is not None:
            self.loaded()

    @property
    def stopping(self) -> bool:
        """Whether no more commands are to run."""
        return self._dispatcher.stopped

    # Monitors

    def monitor(self, *, pretty: bool = False) -> Monitor:
        """Return a monitor of this daemon, to be served somewhere."""
        named_fds: dict[str, int] = {}
        self._named_fds.append(named_fds)

        def connected(connection: Connection) -> MonitorContext:
            self._clients += 1
            if self._emu is not None:
                self._emu.fdsets.monitors += 1
            self.log.info("client connected")
            return MonitorContext(self, connection, named_fds)

        monitor = Monitor(
            connected,
            lambda: self.registry,
            self.profile,
            pretty=pretty,
            dispatcher=self._dispatcher,
            hub=self._hub,
            self_check=self._self_check,
            on_bug=lambda error: self.log.error("a command failed unexpectedly", exc_info=error),
            reword=self._reword,
            crash=self._crash,
        )
        monitor.on_disconnect = self._disconnected
        return monitor

    def _crash(self) -> None:
        """End as QEMU does by a policy: at once, with a core if there may be one."""
        if self.die is not None:
            os.abort()

    def _reword(self, error: Exception, command: str) -> str:
        """Say what went wrong in the words of the profile."""
        if self.profile.version is None:
            return str(error)
        from blockemu.rewording import reword_error  # start-up: most things go well

        return reword_error(self.profile, error, command)

    def _disconnected(self) -> None:
        self._clients -= 1
        if self._emu is not None:
            self._emu.fdsets.monitor_gone()
        self.log.info("client disconnected")

    def serve(self, chardev: Chardev, *, pretty: bool = False, greeted: bool = False) -> Server:
        """Put a monitor on a chardev; ``greeted``: its client has had its greeting already."""
        plug = chardev.plug()
        server = Server(self.monitor(pretty=pretty), _address(plug))
        self._servers.append(server)
        if isinstance(chardev, SocketChardev):
            chardev.connection = lambda: _socket_of(server)
        if plug.listener is not None and plug.connection is not None:
            plug.listener.setblocking(False)
            server.listener = plug.listener  # listened to when this client has left
        elif plug.listener is not None:
            server.listen(plug.listener)
        if plug.connection is not None:
            server.attach(plug.connection, greeted=greeted)
        elif plug.reconnect:
            server.connect()
        elif plug.reader >= 0:
            server.attach_fds(plug.reader, plug.writer)
        return server

    # The end

    def shut_down(self, reason: str) -> None:
        """Run no more commands and let ``stopped`` be set; whoever awaits it has to ``close``.

        The reply to the command that did this comes last, when all is closed.
        """
        self._dispatcher.stopped = True
        if self._announces_shutdown:
            from blockemu.schema.run_state import Shutdown, ShutdownCause  # start-up

            self.emu.emit(Shutdown(guest=False, reason=ShutdownCause(reason)))
        self.stop()

    def stop(self, status: int = 0) -> None:
        """Run no more commands and let ``stopped`` be set; ``status`` is then the program's."""
        self.status = status
        self._dispatcher.stopped = True
        asyncio.get_running_loop().call_soon(self.stopped.set)

    async def close(self) -> None:
        """End jobs, flush and close nodes, then hang up on all clients."""
        self._dispatcher.stopped = True
        if self._emu is not None:
            self._emu.program = self.program
            await self._emu.close()
        self._dispatcher.say_last()
        for server in self._servers:
            server.close()
        self.chardevs.close()
        if self._emu is not None:
            self._emu.fdsets.close_all()
        for fds in self._named_fds:
            for fd in fds.values():
                os.close(fd)
            fds.clear()
        self.stopped.set()


def _address(plug: Plug) -> Address:
    """Return where a monitor that connects out reconnects to."""
    at, seconds = plug.address, plug.reconnect
    if isinstance(at, UnixAddress):
        return Address("unix", path=at.path, server=False, reconnect=seconds)
    if isinstance(at, InetAddress):
        return Address("tcp", host=at.host, port=at.port, server=False, reconnect=seconds)
    return Address("fd")


def _socket_of(server: Server) -> Any:
    connection = server.connection
    return connection._sock if connection is not None else None


def _log_commands(registry: "Registry", log: Log) -> None:
    """Let each command write a line before it runs."""
    find = registry.get

    def get(name: str, profile: Profile = ALL) -> Any:
        log.debug("command", name=name)
        return find(name, profile)

    registry.get = get  # type: ignore[method-assign]
