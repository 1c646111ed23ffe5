"""The command line of ``blockemu``: qemu-storage-daemon's, and some options of our own.

Options take effect in the order in which they stand, so what one refers to must come before it.
What needs no event loop is done before one is imported: a client on an inherited or waited-for
connection is greeted 50 ms earlier that way.
"""

import sys
from collections.abc import Mapping
from typing import Final

from blockemu.arguments import PROGRAM, Option, UsageError, scan
from blockemu.programs.process import Background, ends
from blockemu.programs.program_options import Globals
from blockemu.programs.startup import Refused, Startup
from blockemu.qmp_server.profile import ALL

_OURS: Final = frozenset({"qmp", "compat", "log-level", "log-format", "no-plan", "self-check"})
_LONG: Final[Mapping[str, bool]] = {
    "blockdev": True,
    "chardev": True,
    "daemonize": False,
    "export": True,
    "help": False,
    "monitor": True,
    "nbd-server": True,
    "object": True,
    "pidfile": True,
    "trace": True,
    "version": False,
    "qmp": True,
    "compat": True,
    "log-level": True,
    "log-format": True,
    "no-plan": False,
    "self-check": False,
}
_SHORT: Final = {"h": "help", "T": "trace", "V": "version"}


def _globals(argv: list[str]) -> "tuple[Globals, list[Option]]":
    """Return what holds for the program, and the other options in order."""
    found = Globals(PROGRAM, HELP, ALL)
    options = scan(argv, _LONG, _SHORT, _OURS)
    return found, [option for option in options if not found.take(option)]


def main(argv: list[str] | None = None) -> int:
    """Run the program; return its exit status."""
    try:
        settings, options = _globals(sys.argv[1:] if argv is None else argv)
        background = Background() if settings.daemonize else None
        return ends(Startup(settings, options, background).run())
    except (UsageError, Refused) as e:
        sys.stderr.write(f"{PROGRAM}: {e}\n")
        return 1


HELP: Final = f"""\
Usage: {PROGRAM} [options]
QEMU's block layer without QEMU: a QMP daemon over disk images

  -h, --help             print this text
  -V, --version          print the version

  --qmp unix:<path>[,server=on|off][,wait=on|off][,reconnect=<seconds>]
  --qmp tcp:<host>:<port>[,server=on|off][,wait=on|off][,reconnect=<seconds>]
  --qmp stdio
  --qmp fd:<number>
                         make a QMP monitor, and say where clients reach it

  --blockdev [driver=]<driver>,node-name=<name>[,<option>=<value>...]
                         open a node, as blockdev-add does

  --chardev <backend>,id=<name>[,<option>=<value>...]
                         make a chardev for a monitor: socket, stdio, pipe,
                         file, ringbuf or null

  --monitor [chardev=]<name>[,mode=control][,pretty=on|off]
                         make a QMP monitor on a chardev

  --object <type>,id=<name>[,<property>=<value>...]
                         make an object, as object-add does
  --object help          list the types
  --object <type>,help   list the properties of a type

  --compat 4.2|5.2|6.2|7.2|all[,deprecated-input=accept|reject|crash]
           [,deprecated-output=accept|hide][,unstable-input=...]
           [,unstable-output=...]
                         be the QMP of that version (default: all of them)

  --daemonize            go into the background once everything is ready
  --pidfile <path>       write the process id there once everything is ready

  --log-level debug|info|warning|error|critical
                         what to log on standard error (default: warning)
  --log-format console|json
                         how to log it (default: console)

  --no-plan              serve each request by the slow path (for tests)
  --self-check           check each reply and event against its own type, and after each command
                         that graph, permissions, drains, bitmaps and jobs are consistent

Options take effect in the order in which they are given.  Those of
qemu-storage-daemon mean what they mean there.
"""
