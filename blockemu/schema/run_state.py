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


class Shutdown(Event, event="SHUTDOWN"):
    """The program is about to end.

    @guest: whether the guest wanted it
    @reason: why
    """

    guest: bool
    reason: ShutdownCause
