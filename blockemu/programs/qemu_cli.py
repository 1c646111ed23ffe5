"""The command line of ``blockemu-qemu``: a machine without a CPU, as qemu-system takes it."""

import os
import sys
from typing import Final

from blockemu.arguments import Option, UsageError
from blockemu.machine.argv import scan
from blockemu.programs.process import Background, ends
from blockemu.programs.program_options import Globals
from blockemu.programs.startup import Refused
from blockemu.qmp_server.profile import Profile

PROGRAM = "blockemu-qemu"


def _answer_questions(options: list[Option], name: str) -> None:
    """Print the list that is asked for, if one is, and leave."""
    for option in options:
        asks = "help" in option.value or "?" in option.value
        if not asks and option.name != "d":  # which tells what there is if it is wrong
            continue
        from blockemu.machine.questions import answer  # start-up

        told = answer(option)
        if told is None:
            continue
        if told.error:
            sys.stderr.write(f"{name}: {option.where}: {told.error}\n")
        sys.stdout.write(told.text)
        sys.stdout.flush()
        sys.exit(told.status)


def _name() -> str:
    """Return the name that messages begin with: the one by which the program was called."""
    name = os.path.basename(sys.argv[0])  # noqa: PTH119 (start-up)
    return PROGRAM if not name or name.endswith(".py") else name


def main(argv: list[str] | None = None) -> int:
    """Run the program; return its exit status."""
    name = _name()
    try:
        newest = Profile.parse("7.2")
        settings = Globals(PROGRAM, _help, newest, imitates="QEMU emulator")
        given = list(scan(sys.argv[1:] if argv is None else argv))
        if any(option.name in ("readconfig", "set") for option in given):
            from blockemu.machine.config_file import expand  # start-up

            given = expand(given)
        options = [option for option in given if not settings.take(option)]
        _answer_questions(options, name)
        from blockemu.programs.qemu_startup import MachineStartup

        background = Background() if settings.daemonize else None
        return ends(MachineStartup(name, settings, options, background).run())
    except (UsageError, Refused) as e:
        between = "" if str(e).startswith(":") else ": "  # a place in a file follows at once
        sys.stderr.write(f"{name}{between}{e}\n")
        return 1


_OPTIONS: Final = {
    "-machine [type=]pc|q35|none": "the machine; -machine help lists them",
    "-accel qtest|tcg|kvm": "qtest: virtual time moves only when a test steps it",
    "-drive [if=<type>][,id=<name>][,file=<file>][,format=<format>][,<option>=<value>...]": "",
    "-hda, -hdb, -hdc, -hdd, -cdrom, -fda, -fdb <file>": "",
    "-snapshot": "forget in the end what is written",
    "-blockdev [driver=]<driver>,node-name=<name>[,<option>=<value>...]": "",
    "-device <type>[,<property>=<value>...]": "-device help lists the types",
    "-object <type>,id=<name>[,<property>=<value>...]": "",
    "-chardev <backend>,id=<name>[,<option>=<value>...]": "",
    "-netdev user|hubport,id=<name>[,<option>=<value>...]": "",
    "-mon [chardev=]<name>[,mode=readline|control][,pretty=on|off]": "",
    "-qmp, -qmp-pretty, -monitor <chardev>": "stdio, unix:<path>, tcp:<host>:<port>, null, none",
    "-qtest <chardev>": "where a test steps the virtual clock",
    "-readconfig <file>": "options from a file",
    "-set <group>.<id>.<option>=<value>": "",
    "-global <type>.<property>=<value>": "",
    "-add-fd fd=<fd>,set=<set>[,opaque=<text>]": "",
    "-incoming <uri>|defer": "wait for a machine",
    "-loadvm <name>": "begin as a snapshot",
    "-name <name>, -uuid <uuid>": "",
    "-no-reboot, -no-shutdown, -action <event>=<action>": "",
    "-compat <version>": "the interface that clients see",
    "-S": "wait for 'cont'",
    "-daemonize, -pidfile <file>": "",
    "-version, -help": "",
}


def _help() -> str:
    from blockemu.machine.questions import usage  # start-up

    return usage(PROGRAM, _OPTIONS)
