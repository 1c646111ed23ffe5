"""The machine's life: its end, its waking, what becomes of a reset; and what it does not have."""

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

from blockemu.chardevs import SocketChardev
from blockemu.commands.context import Context
from blockemu.errors import QmpError
from blockemu.qmp_server.dispatch import command
from blockemu.schema.machine_facts import (
    AnyYankInstance,
    TraceEventInfo,
    YankInstanceBlockNode,
    YankInstanceChardev,
)
from blockemu.schema.numa import AnyNuma
from blockemu.schema.run_state import (
    PanicAction,
    Powerdown,
    RebootAction,
    ShutdownAction,
    WatchdogAction,
)


class NoWaking(QmpError):
    """The machine's guests cannot be put to sleep."""

    template = "wake-up from suspend is not supported by this guest"


class NotAsleep(QmpError):
    """The guest is awake."""

    template = "Unable to wake up: guest is not in suspended state"


class NotBeforeStart(QmpError):
    """The machine has been made."""

    template = "The command is permitted only before machine initialization"


class NotBeforeCreation(QmpError):
    """The machine has been made."""

    template = "The command is permitted only before the machine has been created"


class NoNmi(QmpError):
    """Without a CPU there is nothing to interrupt."""

    template = "this feature or command is not currently supported"


class NoBalloon(QmpError):
    """There is no such device."""

    qmp_class = "DeviceNotActive"
    template = "No balloon device has been activated"


class NoInstance(QmpError):
    """Nothing with connections has the name."""

    qmp_class = "DeviceNotFound"
    template = "Instance not found"


class NoTraceEvent(QmpError):
    """Nothing is traced by that name."""

    template = 'unknown event "{}"'


@command(name="system_powerdown", since="0.14")
def system_powerdown(context: Context) -> None:
    """Ask the guest to end.  There is none that would."""
    context.emu.emit(Powerdown())


@command(name="system_wakeup", since="1.1")
def system_wakeup(context: Context) -> None:
    """Wake the guest up; it does not sleep."""
    raise NotAsleep if context.emu.machine.can_sleep else NoWaking


@command(since="6.0", allow_preconfig=True)
def set_action(
    context: Context,
    *,
    reboot: RebootAction | None = None,
    shutdown: ShutdownAction | None = None,
    panic: PanicAction | None = None,
    watchdog: WatchdogAction | None = None,
) -> None:
    """Say what becomes of a reset, of the end, of panics, and what a watchdog does.

    Of the last two there are none without a guest.

    @reboot: what a reset does
    @shutdown: what the end does
    @panic: what a panic does
    @watchdog: what a watchdog does
    """
    machine = context.emu.machine
    machine.on_reset = reboot or machine.on_reset
    machine.on_end = shutdown or machine.on_end


@command(since="2.11")
def watchdog_set_action(context: Context, *, action: WatchdogAction) -> None:
    """Say what a watchdog does; there is none.

    @action: what it does
    """


@command(since="3.0", allow_preconfig=True, features=("unstable",))
def x_exit_preconfig(context: Context) -> None:
    """Go on with making the machine; it is there before anybody can ask."""
    raise NotBeforeStart


@command(since="3.0", allow_preconfig=True)
def set_numa_node(context: Context, options: AnyNuma) -> None:
    """Say which memory is near to which CPU; the machine has been made."""
    raise NotBeforeCreation


@command(since="2.1")
def rtc_reset_reinjection(context: Context) -> None:
    """Forget ticks that the guest has missed: none."""


@command(since="0.14")
def inject_nmi(context: Context) -> None:
    """Interrupt the CPUs: there are none."""
    raise NoNmi


@command(since="0.14")
def balloon(context: Context, *, value: int) -> None:
    """Say how much memory the guest may have; it has none.

    @value: bytes
    """
    raise NoBalloon


@command(since="2.2")
def trace_event_get_state(
    context: Context, *, name: str, vcpu: int | None = None
) -> list[TraceEventInfo]:
    """Tell which events are traced; ours have no names.

    @name: the event, or a pattern
    @vcpu: the CPU
    """
    _check_events(name)
    return []


@command(since="2.2")
def trace_event_set_state(
    context: Context,
    *,
    name: str,
    enable: bool,
    ignore_unavailable: bool | None = None,
    vcpu: int | None = None,
) -> None:
    """Trace events, or do not; ours have no names.

    @name: the event, or a pattern
    @enable: whether to trace it
    @ignore-unavailable: say nothing of those that cannot be traced
    @vcpu: the CPU
    """
    _check_events(name)


def _check_events(name: str) -> None:
    """Refuse a name; a pattern fits nothing, which is no error."""
    if fnmatchcase(name, "*[*?]*"):
        return
    raise NoTraceEvent(name)


@command(since="6.0", oob=True)
def yank(context: Context, *, instances: list[AnyYankInstance]) -> None:
    """Break connections that hang; nothing is done if one of them does not exist.

    @instances: what they belong to
    """
    known = dict(_instances(context))
    if not all(instance in known for instance in instances):
        raise NoInstance
    for instance in instances:
        known[instance]()


@command(since="6.0", oob=True)
def query_yank(context: Context) -> list[AnyYankInstance]:
    """List what has connections that may be broken."""
    return [instance for instance, _ in _instances(context)]


def _instances(context: Context) -> Iterator[tuple[AnyYankInstance, Callable[[], None]]]:
    """Yield what has connections, the newest first, and what breaks them."""
    for node in context.emu.graph:
        breaks = getattr(node, "yank", None)
        if breaks is not None:
            yield YankInstanceBlockNode(node_name=node.name), breaks
    for chardev in context.chardevs:
        if isinstance(chardev, SocketChardev):
            yield YankInstanceChardev(id=chardev.name), _nothing


def _nothing() -> None:
    """Break nothing: a chardev's connection is its monitor's, which does not wait for it."""
