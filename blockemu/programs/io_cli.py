"""The command line of ``blockemu-io``: qemu-io's.

What runs commands is imported when there is something to run: a start that only ends again takes
hardly longer than Python itself.
"""

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

from blockemu import __version__
from blockemu.arguments import Option, UsageError, scan
from blockemu.cache_modes import CACHE_MODES
from blockemu.errors import QmpError
from blockemu.programs.process import ends, prepare

if TYPE_CHECKING:
    from blockemu.programs.io_session import Session

_LONG: Final[Mapping[str, bool]] = {
    "help": False,
    "version": False,
    "cmd": True,
    "format": True,
    "read-only": False,
    "snapshot": False,
    "nocache": False,
    "copy-on-read": False,
    "misalign": False,
    "native-aio": False,
    "aio": True,
    "discard": True,
    "cache": True,
    "trace": True,
    "object": True,
    "image-opts": False,
    "force-share": False,
}
_SHORT: Final = {
    "h": "help",
    "V": "version",
    "c": "cmd",
    "d": "discard",
    "f": "format",
    "r": "read-only",
    "s": "snapshot",
    "n": "nocache",
    "C": "copy-on-read",
    "m": "misalign",
    "k": "native-aio",
    "i": "aio",
    "t": "cache",
    "T": "trace",
    "U": "force-share",
}
_QUIT: Final = ("quit", "q")
_DISCARD: Final = {"ignore": False, "off": False, "unmap": True, "on": True}
_AIO: Final = ("threads", "native", "io_uring")


class BadMode(QmpError):
    """(which, as typed)."""

    template = "Invalid {} option: {}"


class FormatGivenTwice(QmpError):
    """As a format and among the image's options."""

    template = "--image-opts and -f are mutually exclusive"


class OpenMode:
    """How an image is opened: what the program's options and those of ``open`` have in common."""

    def __init__(self) -> None:
        self.read_only = self.snapshot = self.copy_on_read = self.force_share = False
        self.direct = self.no_flush = False
        self.write_through = self.unmap = True
        self.aio = "threads"

    def take(self, letter: str, value: str) -> bool:
        """Note an option, by its letter; tell whether it was one of these.

        Raises:
            BadMode: its value is none.

        """
        match letter:
            case "r":
                self.read_only = True
            case "s":
                self.snapshot = True
            case "C":
                self.copy_on_read = True
            case "U":
                self.force_share = True
            case "n":
                self.direct, self.write_through = True, False
            case "k":
                self.aio = "native"
            case "t":
                self.direct, self.no_flush, self.write_through = _pick("cache", value, CACHE_MODES)
            case "d":
                self.unmap = _pick("discard", value, _DISCARD)
            case "i":
                self.aio = _pick("aio", value, dict(zip(_AIO, _AIO, strict=True)))
            case _:
                return False
        return True

    def defaults(self) -> dict[str, Any]:
        """Return the options of a node that is opened so."""
        return {
            "read-only": self.read_only,
            "auto-read-only": False,
            "discard": "unmap" if self.unmap else "ignore",
            "cache": {"direct": self.direct, "no-flush": self.no_flush},
        }


def _pick(which: str, value: str, choices: Mapping[str, Any]) -> Any:
    if value not in choices:
        raise BadMode(which, value)
    return choices[value]


class Settings:
    """What the command line says."""

    def __init__(self) -> None:
        self.mode = OpenMode()
        self.filename: str | None = None
        self.format: str | None = None
        self.image_opts = False
        self.commands: list[str] = []


class Program:
    """One run of the program."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._settings = Settings()
        self._session: Session | None = None

    @property
    def session(self) -> "Session":
        """What runs commands, made when first needed."""
        if self._session is None:
            from blockemu.programs.io_session import Session  # start-up

            self._session = Session(self.name)
        return self._session

    def run(self, argv: list[str]) -> int:
        """Run; return the exit status."""
        try:
            settings = self._parse(argv)
        except UsageError as e:
            sys.stderr.write(f"{sys.argv[0]}: {e}\n")  # getopt names the program as it was called
            return self._usage()
        except QmpError as e:
            self._say(str(e))
            return 1
        if settings is None:
            return self._usage()
        if self._session is None and settings.filename is None and _only_quits(settings.commands):
            return 0
        return self.session.run(settings)

    def _parse(self, argv: list[str]) -> Settings | None:
        """Read the options in order; None if there are too many words besides."""
        words = iter(argv)
        operands = []
        for option in scan(words, _LONG, _SHORT, frozenset()):
            if option.name:
                self._take(option)
            else:
                operands.append(option.value)
        operands += words  # what stands after --
        if len(operands) > 1:
            return None
        if self._settings.format is not None and self._settings.image_opts:
            raise FormatGivenTwice
        self._settings.filename = operands[0] if operands else None
        return self._settings

    def _take(self, option: Option) -> None:
        settings, value = self._settings, option.value
        letter = next((c for c, name in _SHORT.items() if name == option.name), "")
        if settings.mode.take(letter, value):
            return
        match option.name:
            case "help":
                self._leave(HELP.format(name=self.name))
            case "version":
                self._leave(_version(self.name))
            case "cmd":
                settings.commands.append(value)
            case "format":
                settings.format = value
            case "image-opts":
                settings.image_opts = True
            case "object":
                self._add_object(value)
            case "trace":
                self._say("warning: tracing is not supported")
            case _:  # misalign: our buffers are aligned where they must be
                pass

    def _add_object(self, text: str) -> None:
        from blockemu.objects.object_options import ObjectHelp  # start-up

        try:
            self.session.add_object(text)
        except ObjectHelp as e:
            self._leave(f"{e}\n")

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{self.name}: {text}\n")
        sys.stderr.flush()

    def _usage(self) -> int:
        sys.stdout.write(HELP.format(name=self.name))
        return 1

    def _leave(self, text: str) -> NoReturn:
        sys.stdout.write(text)
        sys.exit(0)


def _only_quits(commands: list[str]) -> bool:
    """Tell whether the first command that is not empty ends the program."""
    names = (name for line in commands for name in line.split(" ")[:1] if line.strip(" "))
    return next(names, "") in _QUIT


def _version(name: str) -> str:
    from blockemu.qmp_server.profile import ALL  # start-up

    newest = ".".join(map(str, ALL.greeting_version))
    return (
        f"{name} version {__version__} (qemu-io of QEMU {newest})\n"
        "Copyright (c) 2026 The blockemu authors\n"
    )


def main() -> int:
    """Run the program; return its exit status."""
    prepare(tool=True)
    name = os.path.basename(sys.argv[0])  # noqa: PTH119
    if name in ("io_cli.py", "__main__.py", "-c"):
        name = "blockemu-io"
    return ends(Program(name).run(sys.argv[1:]))


HELP: Final = """\
Usage: {name} [OPTIONS]... [-c STRING]... [file]
Run commands on a disk image

  --object OBJECTDEF   add an object, such as a secret with a password
  --image-opts         the file is given as options, not by name
  -c, --cmd STRING     run a command; may be given several times
  -f, --format FMT     the format of the image (default: probe)
  -r, --read-only      open the image read-only
  -s, --snapshot       write to a temporary overlay
  -n, --nocache        bypass the host's cache: -t none
  -C, --copy-on-read   keep what was read from backing files
  -m, --misalign       accepted; makes no difference
  -k, --native-aio     the same as -i native
  -i, --aio=MODE       threads, native or io_uring
  -t, --cache=MODE     writeback, none, writethrough, directsync or unsafe
                       (default: writethrough)
  -d, --discard=MODE   unmap or ignore (default: unmap)
  -T, --trace OPTIONS  accepted; there is no tracing
  -U, --force-share    open an image that others use
  -h, --help           display this help and exit
  -V, --version        output version information and exit

Without -c, commands are read from standard input.
See '{name} -c help' for the commands there are.
"""


if __name__ == "__main__":
    sys.exit(main())
