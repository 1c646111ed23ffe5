"""Run states and their events (qapi/run-state.json, qapi/misc.json)."""

from blockemu.qmp_server.dispatch import Event
from blockemu.qmp_server.qapi import QEnum, Struct


class RunState(QEnum):
    """What the machine is doing."""

    DEBUG = "debug"
    FINISH_MIGRATE = "finish-migrate"
    INMIGRATE = "inmigrate"
    INTERNAL_ERROR = "internal-error"
    IO_ERROR = "io-error"
    PAUSED = "paused"
    POSTMIGRATE = "postmigrate"
    PRELAUNCH = "prelaunch"
    RESTORE_VM = "restore-vm"
    RUNNING = "running"
    SAVE_VM = "save-vm"
    SHUTDOWN = "shutdown"
    SUSPENDED = "suspended"
    WATCHDOG = "watchdog"
    GUEST_PANICKED = "guest-panicked"
    COLO = "colo"


class ShutdownCause(QEnum):
    """Why the machine ends."""

    NONE = "none"
    HOST_ERROR = "host-error"
    HOST_QMP_QUIT = "host-qmp-quit"
    HOST_QMP_SYSTEM_RESET = "host-qmp-system-reset"
    HOST_SIGNAL = "host-signal"
    HOST_UI = "host-ui"
    GUEST_SHUTDOWN = "guest-shutdown"
    GUEST_RESET = "guest-reset"
    GUEST_PANIC = "guest-panic"
    SUBSYSTEM_RESET = "subsystem-reset"
    SNAPSHOT_LOAD = "snapshot-load"


class StatusInfo(Struct):
    """What ``query-status`` answers.

    @running: whether the machine runs
    @singlestep: never
    @status: the run state
    """

    running: bool
    singlestep: bool
    status: RunState


class Stop(Event, event="STOP"):
    """The machine was stopped."""


class Resume(Event, event="RESUME"):
    """The machine runs again."""


class Powerdown(Event, event="POWERDOWN"):
    """The guest was asked to end; there is none that would."""


class Wakeup(Event, event="WAKEUP"):
    """The guest was woken up; there is none that slept."""


class RebootAction(QEnum):
    """What becomes of a reset."""

    RESET = "reset"
    SHUTDOWN = "shutdown"


class ShutdownAction(QEnum):
    """What becomes of the end."""

    POWEROFF = "poweroff"
    PAUSE = "pause"


class PanicAction(QEnum):
    """What becomes of a guest in panic."""

    PAUSE = "pause"
    SHUTDOWN = "shutdown"
    EXIT_FAILURE = "exit-failure"
    NONE = "none"


class WatchdogAction(QEnum):
    """What a watchdog does."""

    RESET = "reset"
    SHUTDOWN = "shutdown"
    POWEROFF = "poweroff"
    PAUSE = "pause"
    DEBUG = "debug"
    NONE = "none"
    INJECT_NMI = "inject-nmi"


class Shutdown(Event, event="SHUTDOWN"):
    """The program is about to end.

    @guest: whether the guest wanted it
    @reason: why
    """

    guest: bool
    reason: ShutdownCause
