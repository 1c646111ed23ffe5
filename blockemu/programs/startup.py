"""Start-up: what each option of the command line does, in order, and then the daemon's life."""

import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from blockemu.arguments import PROGRAM, Option
from blockemu.chardev_options import BACKENDS, OPTIONS, make_chardev, parse_chardev
from blockemu.chardevs import Chardev, Chardevs, FileChardev, SocketChardev, StdioChardev
from blockemu.errors import QmpError
from blockemu.host.sockets import FdAddress, InetAddress, NotASocket, UnixAddress
from blockemu.optlist import HelpWanted
from blockemu.programs.process import Background, PidFile, on_signal
from blockemu.qmp_server.address import AddressError, parse_address
from blockemu.qmp_server.errors import ProtocolError
from blockemu.qmp_server.profile import Profile

if TYPE_CHECKING:
    from blockemu.daemon import Daemon


class Refused(Exception):
    """Start-up ends here; the text is for standard error, after the program's name."""


class Done(Exception):
    """Help was printed: end well."""


class UnexpectedArgument(QmpError):
    """A word that is no option."""

    template = "Unexpected argument"


class Settings(Protocol):
    """The options that hold for the whole program."""

    profile: Profile
    level: str
    format: str
    plans: bool
    self_check: bool
    pidfile: str


class Seat:
    """A monitor that is to be served on a chardev; ``greeted`` once its client has been."""

    def __init__(self, chardev: Chardev, *, pretty: bool) -> None:
        self.chardev = chardev
        self.pretty = pretty
        self.greeted = False


class Startup:
    """Takes the options one after another, then serves until told to end."""

    def __init__(
        self, settings: Settings, options: list[Option], background: Background | None
    ) -> None:
        self._settings = settings
        self._options = options
        self._background = background
        self._chardevs = Chardevs()
        self._seats: list[Seat] = []
        self._where = ""

    def run(self) -> int:
        """Start, serve, end; return the exit status.

        Raises:
            Refused: the program cannot start.
        """
        try:
            options = self._without_loop()
            from blockemu.host.loop import run  # start-up: after the greeting

            return run(self._serve(options))
        except Done:
            return 0

    def _without_loop(self) -> list[Option]:
        """Take the options up to the first that needs an event loop; return the rest."""
        for i, option in enumerate(self._options):
            handler = self._LIGHT.get(option.name)
            if handler is None:
                return self._options[i:]
            self._where = option.where
            self._guarded(handler, option.value)
        return []

    def _guarded(self, handler: "Callable[[Startup, str], None]", value: str) -> None:
        try:
            handler(self, value)
        except (QmpError, ProtocolError, AddressError) as e:
            raise self._refusal(e) from e

    def _refusal(self, error: Exception) -> Refused:
        hint = getattr(error, "hint", "").rstrip("\n")
        return Refused(f"{self._where}: {error}" + (f"\n{hint}" if hint else ""))

    def _tell(self, text: str) -> None:
        first, *more = text.split("\n")
        lines = [f"{PROGRAM}: {self._where}: {first}", *more]
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()

    def _inform(self, text: str) -> None:
        self._tell(f"info: {text}")

    # Options that need no event loop

    def _add_chardev(self, value: str) -> None:
        if value.partition(",")[0] in ("help", "?", "backend=help"):
            self._print("Available chardev backend types: ", *(f"  {name}" for name in BACKENDS))
        try:
            name, backend, options = parse_chardev(
                value, lambda text: self._tell(f"warning: {text}")
            )
        except HelpWanted:
            words = {"bool": "<bool (on/off)>", "number": "<num>", "size": "<size>"}
            rows = (f"  {name}={words.get(OPTIONS[name], '<str>')}" for name in sorted(OPTIONS))
            self._print("chardev options:", *rows)
        if backend == "stdio":
            self._chardevs.check_stdio()
        self._chardevs.add(name, make_chardev(backend, options, self._inform))

    def _print(self, *lines: str) -> None:
        sys.stdout.write("\n".join(lines) + "\n")
        raise Done

    def _add_monitor(self, value: str) -> None:
        from blockemu.programs.monitor_options import MonitorOptions

        options = MonitorOptions.parse(value)
        chardev = self._chardevs.take(options.chardev, hmp=options.hmp)
        self._seat(chardev, pretty=options.pretty)

    def _seat(self, chardev: Chardev, *, pretty: bool = False) -> None:
        seat = Seat(chardev, pretty=pretty)
        self._seats.append(seat)
        client = chardev.plug().connection
        if client is not None:
            from blockemu.qmp_server.session import Service, Session

            service = Service(_no_commands, self._settings.profile)
            client.sendall(Session(service, pretty=pretty).greeting())
            seat.greeted = True

    def _add_qmp(self, value: str) -> None:
        number = len(self._seats)
        names = (f"compat_monitor{n}" for n in range(number, sys.maxsize))
        name = next(name for name in names if self._chardevs.find(name) is None)
        self._chardevs.add(name, self._qmp_chardev(value))
        self._seat(self._chardevs.take(name))

    def _qmp_chardev(self, value: str) -> Chardev:

        at = parse_address(value)
        if at.kind == "stdio":
            return StdioChardev()
        if at.kind == "fd":
            try:
                return SocketChardev(FdAddress(str(at.fd)), server=None)
            except NotASocket:
                return FileChardev(f"/dev/fd/{at.fd}", f"/dev/fd/{at.fd}", append=True)
        return SocketChardev(
            UnixAddress(at.path) if at.kind == "unix" else InetAddress(at.host, at.port),
            server=at.server,
            wait=at.wait,
            reconnect=at.reconnect,
            tell=self._inform,
        )

    def _trace(self, value: str) -> None:
        self._tell("warning: tracing is not supported")

    def _unexpected(self, value: str) -> None:
        raise UnexpectedArgument

    _LIGHT: ClassVar[Mapping[str, "Callable[[Startup, str], None]"]] = {
        "": _unexpected,
        "chardev": _add_chardev,
        "monitor": _add_monitor,
        "qmp": _add_qmp,
        "trace": _trace,
    }

    # Options that need the emulator

    async def _add_object(self, daemon: "Daemon", value: str) -> None:
        from blockemu.objects.object_options import ObjectHelp, parse_object

        try:
            options = parse_object(value, self._settings.profile)
        except ObjectHelp as e:
            self._print(str(e))
        else:
            daemon.emu.objects.add(options)

    async def _add_blockdev(self, daemon: "Daemon", value: str) -> None:
        from blockemu.blockdev_options import BlockdevOptions
        from blockemu.commands.blockdev import add_node
        from blockemu.qmp_server.keyval import parse_option
        from blockemu.qmp_server.qapi import dump, visit

        given, keyval = parse_option(value, "driver")
        emu = daemon.emu  # loads the drivers
        options = visit(BlockdevOptions, given, keyval=keyval, profile=self._settings.profile)
        await add_node(emu, dump(options))

    async def _add_export(self, daemon: "Daemon", value: str) -> None:
        from blockemu.commands.exports import block_export_add
        from blockemu.qmp_server.keyval import parse_option
        from blockemu.qmp_server.qapi import visit
        from blockemu.schema.exports import AnyExportOptions

        given, keyval = parse_option(value, "type")
        options = visit(AnyExportOptions, given, keyval=keyval, profile=self._settings.profile)
        await block_export_add(_StartContext(daemon.emu), options)

    async def _start_nbd_server(self, daemon: "Daemon", value: str) -> None:
        from blockemu.commands.exports import start_server
        from blockemu.qmp_server.keyval import parse_option
        from blockemu.qmp_server.qapi import visit
        from blockemu.schema.exports import NbdServerOptions

        given, keyval = parse_option(value, "")
        options = visit(NbdServerOptions, given, keyval=keyval, profile=self._settings.profile)
        await start_server(daemon.emu, options)

    _HEAVY: ClassVar[Mapping[str, "Callable[[Startup, Daemon, str], Any]"]] = {
        "object": _add_object,
        "blockdev": _add_blockdev,
        "export": _add_export,
        "nbd-server": _start_nbd_server,
    }

    async def _serve(self, options: list[Option]) -> int:
        """Take the other options, say that we are ready, serve, and end."""
        import asyncio

        from blockemu.daemon import Daemon
        from blockemu.logs import Log

        settings = self._settings
        daemon = Daemon(
            profile=settings.profile,
            chardevs=self._chardevs,
            log=Log(settings.level, settings.format),
            self_check=settings.self_check,
            plans=settings.plans,
        )
        daemon.program = PROGRAM
        daemon.die = os._exit
        daemon.loaded = gc.freeze  # what comes with commands stays as well
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            on_signal(number, loop, daemon.shut_down, "host-signal")
        pidfile: PidFile | None = None
        try:
            for option in options:
                await self._take(daemon, option)
            pidfile = self._write_pidfile()
            if self._background is not None:
                self._background.ready()
            for seat in self._seats:
                daemon.serve(seat.chardev, pretty=seat.pretty, greeted=seat.greeted)
            gc.freeze()  # what start-up made stays: no need to look at it again
            await daemon.stopped.wait()
        finally:
            await daemon.close()
            if pidfile is not None:
                pidfile.remove()
        return 0

    async def _take(self, daemon: "Daemon", option: Option) -> None:
        self._where = option.where
        light = self._LIGHT.get(option.name)
        try:
            if light is not None:
                light(self, option.value)
            else:
                await self._HEAVY[option.name](self, daemon, option.value)
        except (QmpError, ProtocolError, AddressError) as e:
            raise self._refusal(e) from e

    def _write_pidfile(self) -> PidFile | None:
        if not self._settings.pidfile:
            return None
        try:
            return PidFile(self._settings.pidfile)
        except QmpError as e:
            raise Refused(str(e)) from e


class _StartContext:
    """What commands get that options stand for."""

    def __init__(self, emu: Any) -> None:
        self.emu = emu


def _no_commands() -> Any:
    raise AssertionError("a greeting needs no commands")
