"""``blockemu-qemu``: a machine with disks and without a CPU, by qemu-system's command line."""

import os
import sys

from blockemu.arguments import Option, UsageError
from blockemu.machine.argv import scan
from blockemu.process import Background, ends, prepare
from blockemu.program_options import Globals, leave
from blockemu.qmp_server.profile import Profile
from blockemu.startup import Refused

PROGRAM = "blockemu-qemu"


def _answer_questions(options: list[Option]) -> None:
    """Print the list that is asked for, if one is, and leave."""
    for option in options:
        words = option.value.split(",")
        wants = any(
            word.partition("=")[2] in ("help", "?") or word in ("help", "?") for word in words
        )
        if not wants:
            continue
        if option.name in ("machine", "M"):
            from blockemu.machine.models import HELP as MACHINES

            leave(MACHINES)
        if option.name == "accel":
            leave("Accelerators supported in QEMU binary:\nqtest\ntcg\n")
        if option.name == "device":
            from blockemu.machine.listing import describe_devices

            leave(describe_devices(option.value))
        if option.name == "drive" and "format=help" in words:
            from blockemu.machine.listing import describe_formats

            leave(describe_formats())


def _name() -> str:
    """Return the name that messages begin with: the one by which the program was called."""
    name = os.path.basename(sys.argv[0])  # noqa: PTH119 (start-up)
    return PROGRAM if not name or name.endswith(".py") else name


def main(argv: list[str] | None = None) -> int:
    """Run the program; return its exit status."""
    prepare()
    name = _name()
    try:
        settings = Globals(PROGRAM, HELP, Profile.parse("7.2"))
        given = list(scan(sys.argv[1:] if argv is None else argv))
        if any(option.name in ("readconfig", "set") for option in given):
            from blockemu.machine.config_file import expand  # start-up

            given = expand(given)
        options = [option for option in given if not settings.take(option)]
        _answer_questions(options)
        from blockemu.qemu_startup import MachineStartup

        background = Background() if settings.daemonize else None
        return ends(MachineStartup(name, settings, options, background).run())
    except (UsageError, Refused) as e:
        between = "" if str(e).startswith(":") else ": "  # a place in a file follows at once
        sys.stderr.write(f"{name}{between}{e}\n")
        return 1


HELP = f"""\
usage: {PROGRAM} [options] [disk_image]
A machine that has disks, monitors and a run state, but no CPU: options are qemu-system's.

  -machine [type=]pc|q35|none      the machine; -machine help lists them
  -accel qtest|tcg|kvm             qtest: virtual time moves only when a test steps it
  -drive [if=<type>][,id=<name>][,file=<file>][,format=<format>][,<option>=<value>...]
  -blockdev [driver=]<driver>,node-name=<name>[,<option>=<value>...]
  -device <type>[,<property>=<value>...]
                                   -device help lists the types
  -object <type>,id=<name>[,<property>=<value>...]
  -chardev <backend>,id=<name>[,<option>=<value>...]
  -mon [chardev=]<name>[,mode=readline|control][,pretty=on|off]
  -qmp, -qmp-pretty, -monitor <chardev>
                                   a monitor on stdio, unix:<path>, tcp:<host>:<port>, null, none
  -qtest <chardev>                 where a test steps the virtual clock
  -readconfig <file>, -set <group>.<id>.<option>=<value>, -global <type>.<property>=<value>
  -add-fd fd=<fd>,set=<set>[,opaque=<text>]
  -S                               wait for 'cont'
  -daemonize, -pidfile <file>
  -version, -help

What has to do with CPUs, memory, displays and networks is accepted and does nothing.
"""

if __name__ == "__main__":
    sys.exit(main())
