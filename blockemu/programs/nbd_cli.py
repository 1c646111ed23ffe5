"""The command line of ``blockemu-nbd``: qemu-nbd's.

What serves and what lists is imported when it is clear that there is something to do.
"""

import fcntl
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn

from blockemu import __version__
from blockemu.arguments import UsageError, scan
from blockemu.errors import QmpError, Wrapped
from blockemu.programs import nbd_refusals as refusals
from blockemu.programs.nbd_settings import Settings
from blockemu.programs.process import ends, prepare

if TYPE_CHECKING:
    from blockemu.emulator import Emulator
    from blockemu.tls.credentials import TlsCreds

_LONG: Final[Mapping[str, bool]] = {
    "help": False,
    "version": False,
    "bind": True,
    "port": True,
    "socket": True,
    "offset": True,
    "read-only": False,
    "allocation-depth": False,
    "bitmap": True,
    "connect": True,
    "disconnect": False,
    "list": False,
    "snapshot": False,
    "load-snapshot": True,
    "nocache": False,
    "cache": True,
    "aio": True,
    "discard": True,
    "detect-zeroes": True,
    "shared": True,
    "format": True,
    "persistent": False,
    "verbose": False,
    "object": True,
    "export-name": True,
    "description": True,
    "tls-creds": True,
    "tls-hostname": True,
    "tls-authz": True,
    "image-opts": False,
    "trace": True,
    "fork": False,
    "pid-file": True,
    "selinux-label": True,
}
_SHORT: Final = {
    "h": "help",
    "V": "version",
    "b": "bind",
    "o": "offset",
    "p": "port",
    "r": "read-only",
    "s": "snapshot",
    "n": "nocache",
    "c": "connect",
    "d": "disconnect",
    "v": "verbose",
    "k": "socket",
    "e": "shared",
    "f": "format",
    "t": "persistent",
    "l": "load-snapshot",
    "x": "export-name",
    "T": "trace",
    "D": "description",
    "A": "allocation-depth",
    "B": "bitmap",
    "L": "list",
}
FIRST_ACTIVATION: Final = 3  # the first descriptor that a service manager hands over


class Program:
    """One run of the program."""

    def __init__(self, called: str) -> None:
        self.called = called  # as the user did
        self.name = os.path.basename(called)  # noqa: PTH119
        if self.name in ("nbd_cli.py", "__main__.py", "-c"):
            self.name = "blockemu-nbd"
        self._settings = Settings()
        self._emulator: Emulator | None = None

    def run(self, argv: list[str]) -> int:
        """Run; return the exit status."""
        try:
            self._parse(argv)
            return self._do()
        except UsageError as e:
            sys.stderr.write(f"{self.called}: {e}\n")
            return self.fail(f"Try `{self.called} --help' for more information.")
        except refusals.WrongCount as e:
            self.fail(str(e))
            sys.stderr.write(f"Try `{self.called} --help' for more information.\n")
            return 1
        except QmpError as e:
            return self.fail(str(e), e.hint)

    def fail(self, text: str, hint: str = "") -> int:
        """Report what went wrong; return the exit status for it."""
        sys.stdout.flush()
        line = f"{self.name}: {text}\n{hint}"
        with suppress(OSError):
            os.write(2, line.encode("utf-8", "surrogateescape"))
        return 1

    def say(self, text: str) -> None:
        """Tell the user something that ends nothing."""
        self.fail(text.rstrip("\n"))

    def _parse(self, argv: list[str]) -> None:
        words = iter(argv)
        operands = []
        for option in scan(words, _LONG, _SHORT, frozenset()):
            match option.name:
                case "":
                    operands.append(option.value)
                case "help":
                    self._leave(HELP.format(name=self.called))
                case "version":
                    self._leave(_version(self.name))
                case "object":
                    self._add_object(option.value)
                case _:
                    self._settings.take(option)
        self._settings.take_operands([*operands, *words])

    def _do(self) -> int:
        """Do what is asked for, once that is understood."""
        settings = self._settings
        sockets = _handed_over()
        settings.check_activation(sockets)
        settings.check_tls()
        tls = self._credentials()
        if settings.selinux_label is not None:
            raise refusals.NoSelinux
        if settings.list:
            from blockemu.programs.nbd_list import show  # start-up

            show(settings.address(), tls, settings.tls_hostname or settings.host)
            return 0
        if settings.disconnect or settings.device is not None:
            raise refusals.NoKernelDevices
        from blockemu.programs.nbd_serve import serve  # start-up

        return serve(self, settings, self.emulator, tls, activated=bool(sockets))

    # Objects

    @property
    def emulator(self) -> "Emulator":
        """The block layer, made when first needed."""
        if self._emulator is None:
            from blockemu.emulator import Emulator  # start-up

            self._emulator = Emulator()
        return self._emulator

    def _add_object(self, text: str) -> None:
        from blockemu.objects.object_options import ObjectHelp, parse_object  # start-up
        from blockemu.qmp_server.errors import ProtocolError

        try:
            self.emulator.objects.add(parse_object(text, self.emulator.profile))
        except ObjectHelp as e:
            self._leave(f"{e}\n")
        except ProtocolError as e:
            raise QmpError(str(e)) from e

    def _credentials(self) -> "TlsCreds | None":
        """Return the object with the credentials, None for clear text (nbd_get_tls_creds)."""
        settings = self._settings
        if settings.tls_creds is None:
            return None
        from blockemu.tls.credentials import credentials  # start-up

        find = self.emulator.objects.find
        try:
            return credentials(find, settings.tls_creds, "client" if settings.list else "server")
        except QmpError as e:
            raise Wrapped("Failed to get TLS creds", e) from e

    def _leave(self, text: str) -> NoReturn:
        sys.stdout.write(text)
        sys.exit(0)


def _handed_over() -> int:
    """Return how many sockets a service manager handed over (check_socket_activation)."""
    process, count = os.environ.get("LISTEN_PID", ""), os.environ.get("LISTEN_FDS", "")
    if process != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return 0
    del os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"]
    for fd in range(FIRST_ACTIVATION, FIRST_ACTIVATION + int(count)):
        try:
            flags = fcntl.fcntl(fd, fcntl.F_GETFD)
            fcntl.fcntl(fd, fcntl.F_SETFD, flags | fcntl.FD_CLOEXEC)
        except OSError as e:
            raise refusals.BadActivation(fd, e.strerror) from e
    return int(count)


def _version(name: str) -> str:
    from blockemu.qmp_server.profile import ALL  # start-up

    newest = ".".join(map(str, ALL.greeting_version))
    return (
        f"{name} version {__version__} (qemu-nbd of QEMU {newest})\n"
        "Copyright (c) 2026 The blockemu authors\n"
    )


def main() -> int:
    """Run the program; return its exit status."""
    prepare()
    return ends(Program(sys.argv[0]).run(sys.argv[1:]))


HELP: Final = """\
Usage: {name} [OPTIONS] FILE
  or:  {name} -L [OPTIONS]
Offer a disk image to NBD clients

  -h, --help                 display this help and exit
  -V, --version              output version information and exit

Where:
  -p, --port=PORT            port to listen at (default: 10809)
  -b, --bind=ADDRESS         address to listen at (default: 0.0.0.0)
  -k, --socket=PATH          path of a local socket to listen at, in place of a port
  -e, --shared=NUM           so many clients at once, 0 for any number (default: 1)
  -t, --persistent           go on when the last client has left
  -x, --export-name=NAME     name of the export (default: the empty name)
  -D, --description=TEXT     description of the export, for people
  -v, --verbose              accepted; makes no difference

What:
  -o, --offset=OFFSET        begin so far into the image
  -A, --allocation-depth     tell clients how deep in the backing chain data lies
  -B, --bitmap=NAME          tell clients what a dirty bitmap says; may be given several times
  -f, --format=FORMAT        format of the image (default: probe)
  -r, --read-only            let nobody write
  -s, --snapshot             write to a temporary overlay
  -l, --load-snapshot=WHICH  offer an internal snapshot, read-only: its id or name, or
                             snapshot.id=ID,snapshot.name=NAME
  -n, --nocache              bypass the host's cache: --cache=none
      --cache=MODE           none, writeback (default), writethrough, directsync or unsafe
      --aio=MODE             threads, native or io_uring
      --discard=MODE         ignore (default) or unmap
      --detect-zeroes=MODE   off (default), on or unmap
      --image-opts           FILE is given as options, not by name

Besides:
  -L, --list                 show what another server offers
      --object TYPE,id=ID,...
                             add an object, such as a secret with a password
      --tls-creds=ID         encrypt, with the credentials of an object
      --tls-authz=ID         admit whom an object admits
      --tls-hostname=NAME    with -L, the name that the server's certificate must have
      --fork                 go into the background once clients are served
      --pid-file=PATH        write the process id to a file
  -T, --trace OPTIONS        accepted; there is no tracing

Images are not attached to the kernel: -c and -d are refused.
"""


if __name__ == "__main__":
    sys.exit(main())
