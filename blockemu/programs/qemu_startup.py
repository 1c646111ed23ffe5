"""Start-up of ``blockemu-qemu``: what qemu-system does with its options, in its order.

Chardevs, then objects, nodes, drives, the machine, its monitors, its devices.  Clients on sockets
are connected and greeted before any image is opened.
"""

import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, TextIO

from blockemu.arguments import Option
from blockemu.chardev_options import OPTIONS, make_chardev
from blockemu.chardevs import Chardev
from blockemu.errors import MissingParameter, QmpError
from blockemu.machine.argv import LOOKED_AT, LOOKED_AT_LATER
from blockemu.machine.characters import NoCharDriver, check_port, parse_character
from blockemu.machine.choosing import CHOOSING, MachineChoice
from blockemu.machine.identity import IDENTIFYING, Identity
from blockemu.machine.models import stream_name
from blockemu.optlist import is_on, parse_any, parse_options
from blockemu.programs.arrival import CannotCome, NotRestored, prepare, restore, wait_for
from blockemu.programs.process import Background, PidFile, on_signal
from blockemu.programs.startup import Done, Refused, Settings, Startup
from blockemu.qmp_server.address import AddressError
from blockemu.qmp_server.errors import ProtocolError

if TYPE_CHECKING:
    from blockemu.clocks import SteppedClock
    from blockemu.daemon import Daemon
    from blockemu.machine.defaults import Furniture
    from blockemu.machine.globals import Global
    from blockemu.machine.preparing import Prepared
    from blockemu.machine.qtest import Qtest
    from blockemu.programs.human_monitor import HumanMonitor

_MON: Final = {"mode": "string", "chardev": "string", "pretty": "bool"}
_DISKS: Final = {
    "": {"index": "0", "media": "disk"},
    "hda": {"index": "0", "media": "disk"},
    "hdb": {"index": "1", "media": "disk"},
    "hdc": {"index": "2", "media": "disk"},
    "hdd": {"index": "3", "media": "disk"},
    "cdrom": {"index": "2", "media": "cdrom"},
    "fda": {"index": "0", "if": "floppy"},
    "fdb": {"index": "1", "if": "floppy"},
}


class BadMode(QmpError):
    """Neither a human's nor a program's monitor."""

    template = "Parameter 'mode' does not accept value '{}'"


class DuplicateId(QmpError):
    """The id was given before: (id, kind)."""

    template = "Duplicate ID '{}' for {}"


class MachineStartup(Startup):
    """Takes the options in phases, then serves until told to end."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        options: list[Option],
        background: Background | None,
    ) -> None:
        super().__init__(settings, options, background)
        self._name = name
        self._choice = MachineChoice()
        self._prepared: Prepared | None = None
        self._started = False
        self._compat_monitors = 0
        self._identity = Identity()
        self._paused = False
        self._temporary = False
        self._snapshot = ""  # what the machine begins as
        self._incoming = ""  # where the machine comes from, if it does
        self._humans: list[Chardev] = []
        self._qtest: Chardev | None = None
        self._qtest_log: TextIO | None = sys.stderr
        self._drives: dict[str, str] = {}  # where each was asked for
        self._ids: set[tuple[str, str]] = set()
        self._globals: list[Global] = []
        self._given = ""  # the name of the option that is looked at
        self._monitors: list[HumanMonitor] = []

    def run(self) -> int:
        """Start, serve, end; return the exit status.

        Raises:
            Refused: the program cannot start.

        """
        try:
            self._look_through(self._CHECKS)
            self._try(lambda startup, _: startup._choice.settle(), "")
            self._look_through(self._LATER)
            self._look_through(self._CHARDEVS)
            from blockemu.host.loop import run  # start-up: after the greeting

            return run(self._live())
        except (CannotCome, NotRestored) as e:
            raise Refused(str(e)) from e
        except Done:
            return 0

    def _look_through(self, phase: "Mapping[str, Callable[[MachineStartup, str], None]]") -> None:
        for option in self._options:
            handler = phase.get(option.name)
            if handler is not None:
                self._where, self._given = option.where, option.name
                self._try(handler, option.value)
        self._where = ""

    def _try(self, handler: "Callable[[MachineStartup, str], None]", value: str) -> None:
        try:
            handler(self, value)
        except (QmpError, ProtocolError, AddressError) as e:
            raise self._refusal(e) from e

    def _refusal(self, error: Exception) -> Refused:
        return super()._refusal(error) if self._where else Refused(str(error))

    def _tell(self, text: str) -> None:
        first, *more = text.split("\n")
        where = f"{self._where}: " if self._where else ""
        between = "" if where.startswith(":") else ": "  # a place in a file follows at once
        sys.stderr.write("\n".join([f"{self._name}{between}{where}{first}", *more]) + "\n")
        sys.stderr.flush()

    def _pass_on(self, text: str) -> None:
        """Print what a node has to say, in the way QEMU's warn_report or its printf would."""
        if text.startswith("warning: ") and not self._started:
            self._tell(text)
        else:
            sys.stderr.write(text.rstrip("\n") + "\n")

    def _warn(self, text: str) -> None:
        self._tell(f"warning: {text}")

    # Looking through

    def _choose(self, value: str) -> None:
        self._choice.take(self._given, value, self._warn)

    def _look_at(self, value: str) -> None:
        if value != "none" or self._given.startswith("audio"):
            from blockemu.machine.checked_options import AT_ONCE  # start-up: few give any

            AT_ONCE[self._given](value, self._warn)

    def _look_at_later(self, value: str) -> None:
        self._where = ""
        if value != "none":
            from blockemu.machine.checked_options import LATER  # start-up: few give any

            LATER[self._given](value, self._warn)

    def _check_id(self, value: str, kind: str) -> None:
        name = parse_any(value, self._warn).get("id")
        if name is None:
            return
        if (kind, name) in self._ids:
            raise DuplicateId(name, kind)
        self._ids.add((kind, name))

    def _check_drive(self, value: str) -> None:
        self._check_id(value, "drive")

    def _check_device(self, value: str) -> None:
        if not value.startswith("{"):
            self._check_id(_implied(value, "driver"), "device")

    def _check_network(self, value: str) -> None:
        if not value.startswith("{"):
            self._check_id(_implied(value, "type"), "netdev")

    def _pause(self, value: str) -> None:
        self._paused = True

    def _make_temporary(self, value: str) -> None:
        self._temporary = True

    def _expect(self, value: str) -> None:
        self._incoming = value

    def _restore(self, value: str) -> None:
        self._snapshot = value

    def _identify(self, value: str) -> None:
        self._identity.take(self._given, value, self._warn)

    def _add_global(self, value: str) -> None:
        from blockemu.machine.globals import parse_global  # start-up: seldom asked for

        self._globals.append(parse_global(value, self._warn))

    _CHECKS: ClassVar[Mapping[str, "Callable[[MachineStartup, str], None]"]] = {
        **dict.fromkeys(LOOKED_AT, _look_at),
        **dict.fromkeys(CHOOSING, _choose),
        "drive": _check_drive,
        "device": _check_device,
        "netdev": _check_network,
        "S": _pause,
        "global": _add_global,
        "incoming": _expect,
        **dict.fromkeys(IDENTIFYING, _identify),
        "loadvm": _restore,
        "snapshot": _make_temporary,
    }

    _LATER: ClassVar[Mapping[str, "Callable[[MachineStartup, str], None]"]] = dict.fromkeys(
        LOOKED_AT_LATER, _look_at_later
    )

    # Chardevs and monitors

    def _named(self, value: str) -> Chardev:
        """Make the chardev of an option in the older syntax, under a made-up name."""
        try:
            backend, options = parse_character(value, self._warn, dict(OPTIONS))
        except NoCharDriver as e:
            self._tell(str(e))
            raise Refused(f"{self._where}: parse error: {value}") from e
        if backend == "stdio":
            self._chardevs.check_stdio()
        name = f"compat_monitor{self._compat_monitors}"
        self._compat_monitors += 1
        self._chardevs.add(name, make_chardev(backend, options, self._inform))
        return self._chardevs.take(name)

    def _add_compat_qmp(self, value: str) -> None:
        if value != "none":
            self._seat(self._character(value))

    def _add_pretty_qmp(self, value: str) -> None:
        if value != "none":
            self._seat(self._character(value), pretty=True)

    def _add_compat_monitor(self, value: str) -> None:
        if value != "none":
            self._humans.append(self._character(value))

    def _add_serial(self, value: str) -> None:
        check_port("serial", value, self._chardevs, self._tell)
        if value.startswith("mon:"):
            self._humans.append(self._character(value[4:]))

    def _check_parallel(self, value: str) -> None:
        check_port("parallel", value, self._chardevs, self._tell)

    def _character(self, value: str) -> Chardev:
        if value.startswith("chardev:"):
            return self._chardevs.take(value[8:])
        return self._named(value)

    def _add_mon(self, value: str) -> None:
        options = parse_options(value, "chardev", _MON, self._warn)
        mode = options.get("mode", "readline")
        if mode not in ("readline", "control"):
            raise BadMode(mode)
        if "chardev" not in options:
            raise MissingParameter("chardev")
        chardev = self._chardevs.take(options["chardev"])
        if mode == "control":
            self._seat(chardev, pretty=is_on(options.get("pretty")))
        else:
            self._humans.append(chardev)

    def _add_qtest(self, value: str) -> None:
        if value != "none":
            self._qtest = self._character(value)

    def _log_qtest(self, value: str) -> None:
        self._qtest_log = None if value == "none" else open(value, "w")  # noqa: PTH123, SIM115

    _CHARDEVS: ClassVar[Mapping[str, "Callable[[MachineStartup, str], None]"]] = {
        "chardev": Startup._add_chardev,
        "qmp": _add_compat_qmp,
        "qmp-pretty": _add_pretty_qmp,
        "monitor": _add_compat_monitor,
        "mon": _add_mon,
        "serial": _add_serial,
        "parallel": _check_parallel,
        "qtest": _add_qtest,
        "qtest-log": _log_qtest,
    }

    # What needs the emulator

    async def _add_fd(self, daemon: "Daemon", value: str) -> None:
        from blockemu.programs.fd_option import add_fd

        add_fd(daemon.emu, value, self._warn)

    async def _add_network(self, daemon: "Daemon", value: str) -> None:
        from blockemu.machine.networks import parse_netdev

        daemon.emu.networks.accept(parse_netdev(value))

    async def _add_drive(self, daemon: "Daemon", value: str) -> None:
        backend = await daemon.emu.drives.add_text(value, self._choice.model.interface)
        self._drives[backend.title] = self._where

    async def _add_disk(self, daemon: "Daemon", value: str, name: str) -> None:
        options = {"file": value, **_DISKS[name]}
        backend = await daemon.emu.drives.add(options, self._choice.model.interface)
        self._drives[backend.title] = self._where

    async def _add_device(self, daemon: "Daemon", value: str) -> None:
        if value.startswith("{"):
            from blockemu.commands.devices import device_add
            from blockemu.qmp_server.keyval import parse_json

            await device_add(_Only(daemon.emu), parse_json(value))
        else:
            await daemon.emu.devices.add(parse_any(_implied(value, "driver"), lambda text: None))

    async def _live(self) -> int:
        """Take the other options, serve, and end."""
        import asyncio

        daemon, clock = self._make_daemon()
        loop = asyncio.get_running_loop()
        for signal_ in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            on_signal(signal_, loop, daemon.shut_down, "host-signal")
        pidfile: PidFile | None = None
        test: Qtest | None = None
        try:
            if self._qtest is not None and clock is not None:
                from blockemu.machine.qtest import attend

                test = attend(self._qtest, clock, daemon.emu.keep, self._qtest_log)
            version = self._settings.profile.greeting_version
            name = stream_name(self._choice.name, version)
            prepare(daemon.emu, name, paused=self._paused, comes=bool(self._incoming))
            await self._open_images(daemon)
            pidfile = self._write_pidfile()
            await self._plug_in(daemon)
            await restore(daemon, self._snapshot)
            wait_for(daemon, self._incoming, self._name)
            if self._background is not None:
                self._background.ready()
            self._where, self._started = "", True
            gc.freeze()  # what start-up made stays: no need to look at it again
            await daemon.stopped.wait()
        finally:
            for human in self._monitors:
                human.close()
            await daemon.close()
            if test is not None:
                test.closed()
            if pidfile is not None:
                pidfile.remove()
        return daemon.status

    def _make_daemon(self) -> "tuple[Daemon, SteppedClock | None]":
        from blockemu.clocks import Clocks, SteppedClock
        from blockemu.daemon import Daemon
        from blockemu.logs import Log

        settings = self._settings
        clock = SteppedClock() if self._choice.stepped else None
        daemon = Daemon(
            profile=settings.profile,
            chardevs=self._chardevs,
            clocks=Clocks(virtual=clock, tested=clock is not None),
            log=Log(settings.level, settings.format),
            self_check=settings.self_check,
            plans=settings.plans,
            announces_shutdown=True,
        )
        daemon.program = self._name
        daemon.die = os._exit
        daemon.loaded = gc.freeze  # what comes with commands stays as well
        self._identity.give_to(daemon.emu.machine, self._choice.model)
        daemon.emu.devices.globals.rows = self._globals
        daemon.emu.objects.of_machine = True
        return daemon, clock

    async def _open_images(self, daemon: "Daemon") -> None:
        daemon.emu.drives.temporary = self._temporary
        daemon.emu.drives.units["ide"] = self._choice.model.units
        daemon.emu.warnings = self._pass_on
        daemon.emu.quiet = self._choice.stepped
        groups, clocks = daemon.emu.throttle_groups, daemon.emu.clocks
        groups.clock = clocks.realtime  # whether a test steps its clock QEMU learns later
        for names in (("add-fd",), ("object",), ("netdev",), ("blockdev",), ("drive", *_DISKS)):
            for option in self._options:
                if option.name in names:
                    await self._open(daemon, option)
        await self._add_defaults(daemon)
        groups.clock = clocks.virtual

    def _furniture(self) -> "Furniture":
        from blockemu.machine.defaults import furnish

        given = ((option.name, option.value) for option in self._options)
        cpus = self._prepared.hardware.topology.cpus if self._prepared else 1
        return furnish(given, self._choice.model, cpus)

    async def _add_defaults(self, daemon: "Daemon") -> None:
        """Add the drives that nobody asked for; make the machine, its CPUs and its memory."""
        from blockemu.machine.defaults import add_default_drives

        self._where = ""
        try:
            await add_default_drives(daemon.emu.drives, self._furniture(), self._choice.model)
            self._prepared = self._choice.prepare(self._warn)
        except (QmpError, ProtocolError) as e:
            raise self._refusal(e) from e

    async def _open(self, daemon: "Daemon", option: Option) -> None:
        handlers: dict[str, Callable[[Daemon, str], Any]] = {
            "add-fd": self._add_fd,
            "object": self._add_object,
            "netdev": self._add_network,
            "blockdev": self._add_blockdev,
            "drive": self._add_drive,
            "device": self._add_device,
        }
        self._where = option.where
        try:
            if option.name in _DISKS:
                await self._add_disk(daemon, option.value, option.name)
            else:
                await handlers[option.name](daemon, option.value)
        except (QmpError, ProtocolError) as e:
            raise self._refusal(e) from e

    async def _plug_in(self, daemon: "Daemon") -> None:
        """Greet the clients, build the machine, plug the devices in."""
        from blockemu.machine.building import build, virtio_drives

        emu = daemon.emu
        self._serve_clients(daemon)
        try:
            furniture = self._furniture()
            await build(emu.devices, emu.drives, self._choice.model, furniture, self._prepared)
        except QmpError as e:
            if emu.drives.homeless not in self._drives:
                hint = f"\n{self._name}: info: {e.hint}" if e.hint else ""
                raise Refused(f"{e}{hint}") from e  # QEMU no longer knows which option it was
            self._where = self._drives[emu.drives.homeless]
            raise self._refusal(e) from e
        for option in self._options:
            if option.name == "audiodev":
                emu.devices.claims.add_audio(option.value)
            elif option.name == "device":
                await self._open(daemon, option)
        for name in virtio_drives(emu.drives):
            self._where = self._drives[name]
            try:
                await emu.devices.add({"driver": "virtio-blk", "drive": name})
            except QmpError as e:
                raise self._refusal(e) from e
        self._where = ""
        for name in emu.devices.begin():
            self._warn(f"nic {name} has no peer")

    def _serve_clients(self, daemon: "Daemon") -> None:
        for seat in self._seats:
            daemon.serve(seat.chardev, pretty=seat.pretty, greeted=seat.greeted)
        if self._humans:
            from blockemu.programs.human_monitor import HumanMonitor

            self._monitors = [HumanMonitor(daemon, chardev) for chardev in self._humans]
            for human in self._monitors:
                human.start()


class _Only:
    """What a command gets that an option stands for."""

    def __init__(self, emu: Any) -> None:
        self.emu = emu


def _implied(value: str, key: str) -> str:
    """Write out the key that the first value may lack."""
    return value if "=" in value.split(",")[0] else f"{key}={value}"
