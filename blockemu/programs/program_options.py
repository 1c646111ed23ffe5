"""The options that hold for a whole program, wherever they stand, whichever program it is."""

import sys
from collections.abc import Callable
from typing import NoReturn

from blockemu import __version__
from blockemu.arguments import Option
from blockemu.programs.startup import Refused
from blockemu.qmp_server.profile import Profile, UnknownProfile

_LEVELS = ("debug", "info", "warning", "error", "critical")
_FORMATS = ("console", "json")


class Globals:
    """What these options said so far; a program has a name, a text for ``help``, and a profile.

    ``imitates``: what the version is of by QEMU's count, which is what tools look for.
    """

    def __init__(
        self,
        program: str,
        help_text: str | Callable[[], str],
        profile: Profile,
        *,
        imitates: str = "",
    ) -> None:
        self._program = program
        self._help = help_text
        self._imitates = imitates
        self._newest = ".".join(map(str, profile.greeting_version))
        self.profile = profile
        self.level = "warning"
        self.format = "console"
        self.plans = True
        self.self_check = False
        self.daemonize = False
        self.pidfile = ""

    def take(self, option: Option) -> bool:
        """Note an option; tell whether it was one of these.  Raises Refused."""
        match option.name:
            case "h" | "help":
                leave(self._help if isinstance(self._help, str) else self._help())
            case "version":
                leave(self._version())
            case "daemonize":
                self.daemonize = True
            case "pidfile":
                self.pidfile = option.value
            case "compat":
                self.profile = _profile(option)
            case "log-level":
                self.level = _one_of(option, _LEVELS)
            case "log-format":
                self.format = _one_of(option, _FORMATS)
            case "no-plan":
                self.plans = False
            case "self-check":
                self.self_check = True
            case _:
                return False
        return True

    def _version(self) -> str:
        first = f"{self._program} version {__version__} (QMP of QEMU {self._newest})"
        if self._imitates:
            first = f"{self._imitates} version {self._newest} ({self._program} {__version__})"
        return f"{first}\nCopyright (c) 2026 The blockemu authors\n"


def _profile(option: Option) -> Profile:
    try:
        return Profile.parse(option.value)
    except UnknownProfile as e:
        raise Refused(f"{option.where}: {e}") from e


def _one_of(option: Option, words: tuple[str, ...]) -> str:
    if option.value not in words:
        raise Refused(
            f"{option.where}: Parameter '{option.name}' does not accept value '{option.value}'"
        )
    return option.value


def leave(text: str) -> NoReturn:
    """Print what was asked for, and end the program well."""
    sys.stdout.write(text)
    sys.stdout.flush()
    sys.exit(0)
