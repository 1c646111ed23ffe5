"""What options tell when they are asked for help: lists, and the end of the program.

After the list_* and *_help functions of qemu-system.  A list has what there is here; that of
what is taken and does nothing is short.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from blockemu.arguments import Option
from blockemu.machine.argv import ALONE, WITH_VALUE


class Answer(NamedTuple):
    """A text for standard output, or for standard error, and the status to leave with."""

    text: str
    error: str = ""
    status: int = 0


_GROUPS: Final = {
    "add-fd": ("add-fd", "fd=num opaque=str set=num", 1),
    "boot": (
        "boot-opts",
        "menu=bool once=str order=str reboot-timeout=num splash-time=num splash=str strict=bool",
        0,
    ),
    "global": ("global", "driver=str property=str value=str", 1),
    "msg": ("msg", "guest-name=bool timestamp=bool", 1),
    "overcommit": ("overcommit", "cpu-pm=bool mem-lock=bool", 1),
    "rtc": ("rtc", "base=str clock=str driftfix=str", 1),
    "smp": (
        "smp-opts",
        "clusters=num cores=num cpus=num dies=num maxcpus=num sockets=num threads=num",
        0,
    ),
}
_KINDS: Final = {"bool": "bool (on/off)"}
_DETAILS: Final = {
    "fd": "file descriptor of which a duplicate is added to fd set",
    "opaque": "free-form string used to describe fd",
    "set": "ID of the fd set to add fd to",
}
_CARDS: Final = (
    "none                 no graphic card\nstd                  standard VGA (default)\n"
)

ITEMS: Final = {
    "none": "log nothing",
    "out_asm": "the host's code that a guest's was turned into",
    "in_asm": "the guest's code",
    "op": "what the guest's code was turned into first",
    "op_opt": "the same after it was made better",
    "op_ind": "the same before it is made direct",
    "int": "interrupts and exceptions",
    "exec": "each block of code that runs",
    "cpu": "registers before each block of code",
    "fpu": "registers for fractions, too",
    "mmu": "how addresses are found",
    "pcall": "calls between segments",
    "cpu_reset": "registers before a reset",
    "unimp": "what the machine lacks",
    "guest_errors": "what a guest does wrong",
    "page": "pages of a program",
    "nochain": "one block of code at a time",
    "plugin": "what plugins say",
    "strace": "system calls of a program",
    "tid": "each thread to a file of its own",
}
LOG_ITEMS: Final = "Log items (comma separated):\n" + "".join(
    f"{name:<15} {text}\n" for name, text in (*ITEMS.items(), ("trace:PATTERN", "trace events"))
)


def _asks(word: str) -> bool:
    return word in ("help", "?")


def _group(name: str) -> Answer:
    title, members, status = _GROUPS[name]
    rows = []
    for member in members.split():
        key, _, kind = member.partition("=")
        row = f"  {key}=<{_KINDS.get(kind, kind)}>"
        detail = _DETAILS.get(key) if name == "add-fd" else None
        rows.append(f"{row:<24} - {detail}" if detail else row)
    return Answer("\n".join([f"{title} options:", *rows, ""]), status=status)


def _list(title: str, rows: Iterable[str]) -> Callable[[str], Answer | None]:
    text = "\n".join([title, *rows, ""])
    return lambda value: Answer(text) if _asks(value) else None


def _of_machine(value: str) -> Answer | None:
    from blockemu.machine.machine_types import describe_machine
    from blockemu.machine.models import describe_machines, machines

    first, *others = value.split(",")
    if _asks(first):
        return Answer(describe_machines())
    name = first.removeprefix("type=")
    known = {word for each in machines() for word in (each.name, each.alias)}
    if name in known and any(_asks(word) for word in others):
        return Answer(describe_machine(name))
    return None


def of_device(value: str) -> Answer | None:
    """Return what a device type that is asked for help is told; None if it is not."""
    from blockemu.machine.listing import describe_devices
    from blockemu.machine.types import BY_NAME

    first, *others = value.split(",")
    name = first.removeprefix("driver=")
    if _asks(name):
        return Answer(describe_devices("help"))
    if not any(_asks(word) for word in others):
        return None
    if name not in BY_NAME:
        return Answer("", f"Device '{name}' not found")
    return Answer(describe_devices(name))


def _of_drive(value: str) -> Answer | None:
    from blockemu.machine.listing import describe_formats

    asked = any(word in ("format=help", "format=?") for word in value.split(","))
    return Answer(describe_formats()) if asked else None


def _of_log(value: str) -> Answer | None:
    known = all(item in ITEMS or item.startswith("trace:") for item in value.split(","))
    return None if known else Answer(LOG_ITEMS, status=1)


def _of_card(value: str) -> Answer | None:
    if not any(_asks(word.removeprefix("model=")) for word in value.split(",")[1:] or [value]):
        return None
    return Answer("Supported NIC models:\ne1000\ne1000e\n")


_ANSWERS: Final[Mapping[str, Callable[[str], Answer | None]]] = {
    "machine": _of_machine,
    "M": _of_machine,
    "accel": _list("Accelerators supported in QEMU binary:", ("qtest", "tcg")),
    "cpu": _list("Available CPUs:", ()),
    "device": of_device,
    "drive": _of_drive,
    "netdev": _list("Available netdev backend types:", ("hubport", "user")),
    "display": _list("Available display backend types:", ("none",)),
    "audiodev": _list("Available audio drivers:", ("none",)),
    "audio": _list("Available audio drivers:", ("none",)),
    "vga": lambda value: Answer(_CARDS) if _asks(value) else None,
    "nic": lambda value: _of_card(value) if "=" in value else None,
    "net": lambda value: _of_card(value) if value.startswith("nic,") else None,
    "d": _of_log,
}


def answer(option: Option) -> Answer | None:
    """Return what an option that asks for help is told; None if it does not ask."""
    if option.name in _GROUPS:
        asks = any(_asks(word) for word in option.value.split(","))
        return _group(option.name) if asks else None
    found = _ANSWERS.get(option.name)
    return found(option.value) if found else None


def usage(program: str, known: Mapping[str, str]) -> str:
    """Return the text of ``-help``: the options that do something, then all others by name."""
    told = {word.strip("-,") for line in known for word in line.split() if word.startswith("-")}
    others = [f"-{name} <value>" for name in WITH_VALUE - told] + [f"-{n}" for n in ALONE - told]
    rows = (f"  {line}\n{'':>35}{text}" if text else f"  {line}" for line, text in known.items())
    first = "A machine that has disks, monitors and a run state, but no CPU"
    return "\n".join(
        [
            f"usage: {program} [options] [disk_image]",
            f"{first}: options are qemu-system's.",
            "",
            *rows,
            "",
            "What has to do with CPUs, memory, displays and networks is accepted and does nothing:",
            *(f"  {each}" for each in sorted(others)),
            "",
        ]
    )
