"""Options that do nothing here: what they say is looked at all the same.

``AT_ONCE`` are refused where they stand, ``LATER`` when all have been read, and then nobody knows
where they stood.  After qemu_init, softmmu/vl.c, and who reads these options.
"""

import errno
import os
import re
from collections.abc import Callable, Mapping
from typing import Final

from blockemu.errors import QmpError
from blockemu.optlist import is_on, number, parse_any, parse_options
from blockemu.qmp_server.keyval import parse_keyval

Warn = Callable[[str], None]
Check = Callable[[str, Warn], None]


class Wrong(QmpError):
    """(what is wrong)."""

    template = "{}"


def _words(kind: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), kind)


def _members(types: Mapping[str, str], implied: str = "") -> Check:
    """Return what refuses members that an option lacks, and values that do not fit."""

    def check(value: str, warn: Warn) -> None:
        parse_options(value, implied, types, warn)

    return check


def _foreign(value: str, warn: Warn) -> None:
    raise Wrong("Option not supported for this target")


# Clocks


_RTC: Final = _words("string", "base clock driftfix")
_ICOUNT: Final = _words("string", "shift rr rrfile rrsnapshot") | _words("bool", "align sleep")
_MOST_SHIFT: Final = 10
_DATE: Final = re.compile(r"\d{4}-\d\d?-\d\d?(T\d\d?:\d\d?:\d\d?)?")


def _rtc(value: str, warn: Warn) -> None:
    options = parse_options(value, "", _RTC)
    base = options.get("base", "utc")
    if base not in ("utc", "localtime") and not _DATE.fullmatch(base):
        raise Wrong("invalid datetime format\nvalid formats: '2006-06-17T16:01:21' or '2006-06-17'")
    for key, known in (("clock", ("host", "rt", "vm")), ("driftfix", ("slew", "none"))):
        if options.get(key, known[0]) not in known:
            raise Wrong(f"invalid option value '{options[key]}'")


def _icount(value: str, warn: Warn) -> None:
    options = parse_options(value, "shift", _ICOUNT, warn)
    rr = options.get("rr")
    if rr not in (None, "record", "replay"):
        raise Wrong(f"Invalid icount rr option: {rr}")
    if rr is not None and "rrfile" not in options:
        raise Wrong("File name not specified for replay")
    align = is_on(options.get("align"))
    sleep = is_on(options.get("sleep"), default=True)
    shift = options.get("shift")
    if shift is None:
        if "align" in options:
            raise Wrong("Please specify shift option when using align")
    elif align and not sleep:
        raise Wrong("align=on and sleep=off are incompatible")
    elif shift == "auto":
        for name, wrong in (("align=on", align), ("sleep=off", not sleep)):
            if wrong:
                raise Wrong(f"shift=auto and {name} are incompatible")
    elif not 0 <= (found if (found := number(shift)) is not None else -1) <= _MOST_SHIFT:
        raise Wrong("icount: Invalid shift value")


# Firmware


_SMBIOS: Final[Mapping[int, str]] = {
    0: "vendor version date release uefi=bool",
    1: "manufacturer product version serial uuid sku family",
    2: "manufacturer product version serial asset location",
    3: "manufacturer version serial asset sku",
    4: "sock_pfx manufacturer version max-speed=number current-speed=number serial asset part "
    "processor-id=number",
    8: "internal_reference external_reference connector_type=number port_type=number",
    11: "value path",
    17: "loc_pfx bank manufacturer serial asset part speed=number",
    41: "designation kind instance=number pcidev",
}
_LAST_SMBIOS: Final = 127
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_ONE_SOURCE: Final = "name, plus exactly one of file, string and gen_id, are needed"


def _smbios(value: str, warn: Warn) -> None:
    options = parse_any(value, warn)
    if "file" in options:
        parse_options(value, "", {"file": "string"})
        if not os.path.exists(options["file"]):  # noqa: PTH110 (pathlib is long to import)
            raise Wrong(f"Cannot read SMBIOS file {options['file']}")
        return
    if "type" not in options:
        raise Wrong("Must specify type= or file=")
    kind = number(options["type"]) or 0
    if not 0 <= kind <= _LAST_SMBIOS:
        raise Wrong("out of range!")
    if kind not in _SMBIOS:
        raise Wrong("Don't know how to build fields for SMBIOS type " + str(kind))
    rows = (word.partition("=") for word in _SMBIOS[kind].split())
    parse_options(value, "", {"type": "number"} | {n: kind or "string" for n, _, kind in rows})
    if kind == 1 and "uuid" in options and not _UUID.fullmatch(options["uuid"]):
        raise Wrong("Invalid UUID")


def _fw_cfg(value: str, warn: Warn) -> None:
    types = _words("string", "name file string gen_id")
    options = parse_options(value, "name", types, warn)
    sources = [key for key in ("file", "string", "gen_id") if options.get(key)]
    if not options.get("name") or len(sources) != 1:
        raise Wrong(_ONE_SOURCE)
    if not options["name"].startswith(("opt/", "etc/")) and "gen_id" not in options:
        warn('externally provided fw_cfg item names should be prefixed with "opt/"')
    if "file" in options:
        name = options["file"]
        try:
            with open(name, "rb"):  # noqa: PTH123
                pass
        except OSError as e:
            text = f"Failed to open file “{name}”: {e.strerror}"
            raise Wrong(f"can't load {name}: {text}") from e


def _acpitable(value: str, warn: Warn) -> None:
    options = parse_any(value, lambda _: None)
    names = options.get("file") or options.get("data")
    if not ({"file", "data"} & options.keys()):
        if "=" in value:
            raise Wrong("'-acpitable' requires one of 'data' or 'file'")
        names = value
    for name in (names or "").split(":"):
        try:
            with open(name, "rb"):  # noqa: PTH123
                pass
        except OSError as e:
            raise Wrong(f"can't open file {name}: {e.strerror}") from e


# The process


_SANDBOX: Final = _words("string", "obsolete elevateprivileges spawn resourcecontrol")
_SANDBOX_VALUES: Final = {
    "obsolete": ("allow", "deny"),
    "elevateprivileges": ("allow", "deny", "children"),
    "spawn": ("allow", "deny"),
    "resourcecontrol": ("allow", "deny"),
}


def _sandbox(value: str, warn: Warn) -> None:
    options = parse_options(value, "enable", _SANDBOX | {"enable": "bool"}, warn)
    if not is_on(options.get("enable")):
        return
    for name, known in _SANDBOX_VALUES.items():
        if options.get(name, known[0]) not in known:
            raise Wrong(f"invalid argument for {name}")


def _user(value: str, warn: Warn) -> None:
    import pwd  # few name one

    if re.fullmatch(r"\d+:\d+", value):
        return
    try:
        pwd.getpwnam(value)
    except KeyError:
        raise Wrong(f'User "{value}" doesn\'t exist (and is not <uid>:<gid>)') from None


def _log_file(value: str, warn: Warn) -> None:
    """Make the file in which nothing will be."""
    try:
        with open(value.replace("%d", str(os.getpid())), "w"):  # noqa: PTH123
            pass
    except OSError as e:
        raise Wrong(f"Error opening logfile {value}: {e.strerror}") from e


def _trace(value: str, warn: Warn) -> None:
    options = parse_options(value, "enable", _words("string", "enable events file"), warn)
    pattern = options.get("enable")
    if pattern and pattern not in ("help", "?") and "*" not in pattern:
        warn(f"trace event '{pattern}' does not exist")


def _log_items(value: str, warn: Warn) -> None:
    for item in value.split(","):
        if item.startswith("trace:") and "*" not in item:
            warn(f"trace event '{item[6:]}' does not exist")


def _dfilter(value: str, warn: Warn) -> None:
    for each in value.split(","):
        if not re.search(r"-|\+|\.\.", each):
            raise Wrong("Bad range specifier")


def _seed(value: str, warn: Warn) -> None:
    if not re.fullmatch(r"\s*[+-]?\d+|\s*0[xX][0-9a-fA-F]+", value):
        raise Wrong(f"Invalid seed number: {value}")


def _chroot(value: str, warn: Warn) -> None:
    if not os.path.isdir(value):  # noqa: PTH112 (pathlib is long to import)
        raise Wrong("chroot failed")


def _memory_path(value: str, warn: Warn) -> None:
    if not os.path.exists(value):  # noqa: PTH110
        text = os.strerror(errno.ENOENT)
        raise Wrong(f"can't open backing store {value} for guest RAM: {text}")


# Displays, sounds and USB


_DISPLAYS: Final = (
    *("default", "none", "gtk", "sdl", "egl-headless", "curses", "cocoa", "spice-app", "dbus"),
    "vnc",
)
_CARDS: Final = ("none", "std", "cirrus", "vmware", "xenfb", "qxl", "tcx", "cg3", "virtio")
_AUDIO: Final = (
    *("none", "alsa", "coreaudio", "dbus", "dsound", "jack", "oss", "pa", "sdl", "sndio"),
    *("spice", "wav"),
)
_SOUND_MEMBERS: Final = ("id", "driver", "timer-period", "in", "out")
_USB: Final = ("tablet", "mouse", "keyboard", "wacom-tablet", "braille")


def _display(value: str, warn: Warn) -> None:
    kind, *members = value.split(",")
    name = kind.removeprefix("type=").partition("=")[0]
    if name not in _DISPLAYS and not value.startswith("{"):
        raise Wrong(f"Parameter 'type' does not accept value '{name}'")
    for member in members if name == "none" else ():
        key = member.partition("=")[0]
        if key not in ("full-screen", "window-close", "show-cursor", "gl"):
            raise Wrong(f"Parameter '{key}' is unexpected")


def _rotate(value: str, warn: Warn) -> None:
    if number(value) not in (0, 90, 180, 270):
        raise Wrong("only 90, 180, 270 deg rotation is available")


def _card(value: str, warn: Warn) -> None:
    if value not in _CARDS and not value.startswith(tuple(f"{card},retrace=" for card in _CARDS)):
        raise Wrong(f"unknown vga type: {value}")


def _audiodev(value: str, warn: Warn) -> None:
    if value.startswith("{"):
        return
    options, _ = parse_keyval(value, "driver", help_ok=True)
    if options.get("driver") not in _AUDIO:
        raise Wrong(f"Parameter 'driver' does not accept value '{options.get('driver')}'")
    if "id" not in options:
        raise Wrong("Parameter 'id' is missing")
    for key in options if options["driver"] == "none" else ():
        if key.partition(".")[0] not in _SOUND_MEMBERS:
            raise Wrong(f"Parameter '{key}' is unexpected")


def _audio(value: str, warn: Warn) -> None:
    if "model" not in parse_keyval(value, "driver", help_ok=True)[0]:
        raise Wrong("Parameter 'model' is missing")


def _usbdevice(value: str, warn: Warn) -> None:
    if value not in _USB:
        raise Wrong(f"could not add USB device '{value}'")


# Networks


_NETWORKS: Final = (
    *("none", "nic", "user", "tap", "l2tpv3", "socket", "stream", "dgram", "vde", "bridge"),
    *("hubport", "netmap", "vhost-user", "vhost-vdpa"),
)
_ADDRESS: Final = re.compile(r"[0-9a-fA-F]{1,2}([:-][0-9a-fA-F]{1,2}){5}")


def _net(value: str, warn: Warn) -> None:
    options = parse_any(value, lambda _: None, "type")
    if options.get("type", "nic") not in _NETWORKS:
        raise Wrong(f"Parameter 'type' does not accept value '{options['type']}'")
    for key in ("macaddr", "mac"):
        if key in options and not _ADDRESS.fullmatch(options[key]):
            raise Wrong("invalid syntax for ethernet address")


# Nodes


_NODE: Final = _words("string", "cpus memdev initiator") | _words("number", "nodeid")
_MOST_NODES: Final = 128


def _numa(value: str, warn: Warn) -> None:
    options = parse_any(value, lambda _: None, "type")
    kind = options.pop("type", "")
    if kind not in ("node", "dist", "cpu", "hmat-lb", "hmat-cache"):
        raise Wrong(f"Parameter 'type' does not accept value '{kind}'")
    if kind != "node":
        return
    for key in options:
        if key not in _NODE and key not in ("mem", "id"):
            raise Wrong(f"Invalid parameter '{key}'")
    nodeid = number(options.get("nodeid", "0")) or 0
    if nodeid >= _MOST_NODES:
        raise Wrong(f"Max number of NUMA nodes reached: {nodeid}")


AT_ONCE: Final[Mapping[str, Check]] = {
    "rtc": _members(_RTC),
    "msg": _members(_words("bool", "timestamp guest-name")),
    "overcommit": _members(_words("bool", "mem-lock cpu-pm")),
    "icount": _icount,
    "smbios": _smbios,
    "fw_cfg": _fw_cfg,
    "acpitable": _acpitable,
    "sandbox": _sandbox,
    "runas": _user,
    "trace": _trace,
    "dfilter": _dfilter,
    "seed": _seed,
    "display": _display,
    "rotate": _rotate,
    "audiodev": _audiodev,
    "audio": _audio,
    "usbdevice": _usbdevice,
    "net": _net,
    "nic": _net,
    "numa": _numa,
    **dict.fromkeys(
        (
            *("g", "prom-env", "semihosting", "semihosting-config", "old-param"),
            *("xen-domid", "xen-attach", "xen-domid-restrict"),
        ),
        _foreign,
    ),
}
LATER: Final[Mapping[str, Check]] = {
    "D": _log_file,
    "d": _log_items,
    "rtc": _rtc,
    "vga": _card,
    "chroot": _chroot,
    "mem-path": _memory_path,
}
