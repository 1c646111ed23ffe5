"""What is told of guests, networks and displays; nothing is, since a machine has none."""

from typing import Annotated

from blockemu.qmp_server.dispatch import Event
from blockemu.qmp_server.qapi import U32, U64, QEnum, Since, Struct, Union, values
from blockemu.schema.displays import VncBasicInfo, VncClientInfo
from blockemu.schema.guest_memory import DumpQueryResult
from blockemu.schema.machine_facts import ACPIOSTInfo
from blockemu.schema.machine_reports import COLOExitReason, COLOMode
from blockemu.schema.run_state import WatchdogAction
from blockemu.schema.sockets import AnySocketAddress
from blockemu.schema.spice import SpiceBasicInfo, SpiceChannel, SpiceServerInfo


class AcpiDeviceOst(Event, event="ACPI_DEVICE_OST"):
    """The guest's system has said something of a slot.

    @info: what
    """

    info: ACPIOSTInfo


class BalloonChange(Event, event="BALLOON_CHANGE"):
    """The guest has another amount of memory.

    @actual: bytes
    """

    actual: int


class ColoExit(Event, event="COLO_EXIT", since="3.1"):
    """Two machines do not do the same any more.

    @mode: which this was
    @reason: why
    """

    mode: COLOMode
    reason: COLOExitReason


class DumpCompleted(Event, event="DUMP_COMPLETED"):
    """A dump has come to an end.

    @result: how far it came
    @error: what went wrong
    """

    result: DumpQueryResult
    error: str | None = None


class FailoverNegotiated(Event, event="FAILOVER_NEGOTIATED", since="4.2"):
    """The guest can do with another network card meanwhile.

    @device-id: the card that stays
    """

    device_id: str


@values(since={"run": "5.0"})
class GuestPanicAction(QEnum):
    """What is done about a guest that gave up."""

    PAUSE = "pause"
    POWEROFF = "poweroff"
    RUN = "run"


class GuestPanicInformationType(QEnum):
    """Who told of it."""

    HYPER_V = "hyper-v"
    S390 = "s390"


class S390CrashReason(QEnum):
    """Why a guest gave up."""

    UNKNOWN = "unknown"
    DISABLED_WAIT = "disabled-wait"
    EXTINT_LOOP = "extint-loop"
    PGMINT_LOOP = "pgmint-loop"
    OPINT_LOOP = "opint-loop"


PANIC = Union("GuestPanicInformation", "type")


class GuestPanicInformation(Struct, union=PANIC):
    """What is known of a guest that gave up."""


class GuestPanicInformationHyperV(GuestPanicInformation, tag="hyper-v"):
    """What Windows said.

    @arg1: first number
    @arg2: second number
    @arg3: third number
    @arg4: fourth number
    @arg5: fifth number
    """

    arg1: U64
    arg2: U64
    arg3: U64
    arg4: U64
    arg5: U64


class GuestPanicInformationS390(GuestPanicInformation, tag="s390"):
    """Where a mainframe's CPU stood.

    @core: the CPU
    @psw-mask: first half of its state
    @psw-addr: second half of its state
    @reason: why
    """

    core: U32
    psw_mask: U64
    psw_addr: U64
    reason: S390CrashReason


class GuestCrashloaded(Event, event="GUEST_CRASHLOADED", since="5.0"):
    """The guest gave up, and sees to it itself.

    @action: what is done
    @info: what is known of it
    """

    action: GuestPanicAction
    info: Annotated[GuestPanicInformation, PANIC] | None = None


class GuestPanicked(Event, event="GUEST_PANICKED"):
    """The guest gave up.

    @action: what is done
    @info: what is known of it
    """

    action: GuestPanicAction
    info: Annotated[GuestPanicInformation, PANIC] | None = None


class MemoryDeviceSizeChange(Event, event="MEMORY_DEVICE_SIZE_CHANGE", since="5.1"):
    """The guest has made another use of memory that is a device.

    @id: its id
    @size: bytes that are used
    @qom-path: where it is in the object tree
    """

    id: str | None = None
    size: U64
    qom_path: Annotated[str, Since("6.2")]


class MemoryFailureRecipient(QEnum):
    """Whose memory is broken."""

    HYPERVISOR = "hypervisor"
    GUEST = "guest"


class MemoryFailureAction(QEnum):
    """What is done about it."""

    IGNORE = "ignore"
    INJECT = "inject"
    FATAL = "fatal"
    RESET = "reset"


class MemoryFailureFlags(Struct):
    """How bad it is.

    @action-required: whether something is to be done
    @recursive: whether it happened while something was done
    """

    action_required: bool
    recursive: bool


class MemoryFailure(Event, event="MEMORY_FAILURE", since="5.2"):
    """Memory is broken.

    @recipient: whose
    @action: what is done
    @flags: how bad it is
    """

    recipient: MemoryFailureRecipient
    action: MemoryFailureAction
    flags: MemoryFailureFlags


class MemUnplugError(Event, event="MEM_UNPLUG_ERROR", deprecated="6.2"):
    """The guest does not let memory go.

    @device: the memory
    @msg: why
    """

    device: str
    msg: str


class NetdevStreamConnected(Event, event="NETDEV_STREAM_CONNECTED", since="7.2"):
    """Somebody is at the other end of a network.

    @netdev-id: the network
    @addr: who
    """

    netdev_id: str
    addr: AnySocketAddress


class NetdevStreamDisconnected(Event, event="NETDEV_STREAM_DISCONNECTED", since="7.2"):
    """Nobody is at the other end of a network any more.

    @netdev-id: the network
    """

    netdev_id: str


class NicRxFilterChanged(Event, event="NIC_RX_FILTER_CHANGED"):
    """A network card takes something else.

    @name: the card
    @path: where it is in the object tree
    """

    name: str | None = None
    path: str


class PrManagerStatusChanged(Event, event="PR_MANAGER_STATUS_CHANGED", since="3.0"):
    """A helper for persistent reservations has come or gone.

    @id: the object
    @connected: whether it is there
    """

    id: str
    connected: bool


class RdmaGidStatusChanged(Event, event="RDMA_GID_STATUS_CHANGED", since="4.0"):
    """An address of a card with remote memory has changed.

    @netdev: the network
    @gid-status: whether it is new
    @subnet-prefix: first half of the address
    @interface-id: second half of the address
    """

    netdev: str
    gid_status: bool
    subnet_prefix: U64
    interface_id: U64


class RtcChange(Event, event="RTC_CHANGE"):
    """The guest has set its clock.

    @offset: seconds that it is ahead
    @qom-path: where the clock is in the object tree
    """

    offset: int
    qom_path: Annotated[str, Since("7.0")]


class SpiceConnected(Event, event="SPICE_CONNECTED"):
    """Somebody wants to see the display.

    @server: where
    @client: who
    """

    server: SpiceBasicInfo
    client: SpiceBasicInfo


class SpiceInitialized(Event, event="SPICE_INITIALIZED"):
    """Somebody sees the display.

    @server: where
    @client: who
    """

    server: SpiceServerInfo
    client: SpiceChannel


class SpiceDisconnected(Event, event="SPICE_DISCONNECTED"):
    """Somebody sees the display no more.

    @server: where
    @client: who
    """

    server: SpiceBasicInfo
    client: SpiceBasicInfo


class SpiceMigrateCompleted(Event, event="SPICE_MIGRATE_COMPLETED"):
    """Those who see the display have gone along with the machine."""


class Suspend(Event, event="SUSPEND"):
    """The guest sleeps."""


class SuspendDisk(Event, event="SUSPEND_DISK"):
    """The guest sleeps, and its memory is on its disk."""


class UnplugPrimary(Event, event="UNPLUG_PRIMARY", since="4.2"):
    """The guest is to do with another network card meanwhile.

    @device-id: the card that goes
    """

    device_id: str


class VfuClientHangup(Event, event="VFU_CLIENT_HANGUP", since="7.1"):
    """Another program uses a device no more.

    @vfu-id: the object that lends it
    @vfu-qom-path: where that is in the object tree
    @dev-id: the device
    @dev-qom-path: where that is in the object tree
    """

    vfu_id: str
    vfu_qom_path: str
    dev_id: str
    dev_qom_path: str


class VncServerInfo(VncBasicInfo):
    """Where a display listens.

    @auth: how clients say who they are
    """

    auth: str | None = None


class VncConnected(Event, event="VNC_CONNECTED"):
    """Somebody wants to see the display.

    @server: where
    @client: who
    """

    server: VncServerInfo
    client: VncBasicInfo


class VncInitialized(Event, event="VNC_INITIALIZED"):
    """Somebody sees the display.

    @server: where
    @client: who
    """

    server: VncServerInfo
    client: VncClientInfo


class VncDisconnected(Event, event="VNC_DISCONNECTED"):
    """Somebody sees the display no more.

    @server: where
    @client: who
    """

    server: VncServerInfo
    client: VncClientInfo


class VserportChange(Event, event="VSERPORT_CHANGE"):
    """The guest has opened or closed a serial port.

    @id: the port
    @open: whether it is open
    """

    id: str
    open: bool


class Watchdog(Event, event="WATCHDOG"):
    """A watchdog's time has run out.

    @action: what is done
    """

    action: WatchdogAction
