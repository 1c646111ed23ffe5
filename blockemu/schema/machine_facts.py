"""What queries about a machine tell besides its disks: of most of it, that it is not there.

After qapi/machine.json, machine-target.json, misc.json, acpi.json, tpm.json, ui.json, net.json,
pci.json, yank.json, replay.json, dump.json and trace.json.
"""

from typing import Annotated

from blockemu.qmp_server.profile import FOREVER
from blockemu.qmp_server.qapi import QEnum, Since, Struct, Union, enum_values, values
from blockemu.schema.displays import NetworkAddressFamily, VncClientInfo
from blockemu.schema.spice import SpiceChannel


class TpmModel(QEnum):
    """A device that a TPM is reached by."""

    TPM_TIS = "tpm-tis"
    TPM_CRB = "tpm-crb"
    TPM_SPAPR = "tpm-spapr"


class TpmType(QEnum):
    """What is behind it."""

    PASSTHROUGH = "passthrough"
    EMULATOR = "emulator"


TPM_OPTIONS = Union("TpmTypeOptions", "type")


class TPMPassthroughOptions(Struct):
    """A TPM of the host's.

    @path: its device
    @cancel-path: by which it is told to stop
    """

    path: str | None = None
    cancel_path: str | None = None


class TPMEmulatorOptions(Struct):
    """A program that is a TPM.

    @chardev: by which it is reached
    """

    chardev: str


class TpmTypeOptions(Struct, union=TPM_OPTIONS):
    """What a TPM is reached by."""


class TPMPassthroughOptionsWrapper(TpmTypeOptions, tag="passthrough"):
    """A TPM of the host's.

    @data: its options
    """

    data: TPMPassthroughOptions


class TPMEmulatorOptionsWrapper(TpmTypeOptions, tag="emulator"):
    """A program that is a TPM.

    @data: its options
    """

    data: TPMEmulatorOptions


class TPMInfo(Struct):
    """A TPM.

    @id: its name
    @model: the device that it is reached by
    @options: what is behind it
    """

    id: str
    model: TpmModel
    options: Annotated[TpmTypeOptions, TPM_OPTIONS]


class MachineInfo(Struct):
    """A type of machine.

    @name: its name
    @alias: a shorter one
    @is-default: whether it is what one gets
    @cpu-max: how many CPUs it may have
    @hotpluggable-cpus: whether they may come and go
    @numa-mem-supported: whether ``-numa node,mem`` is understood
    @deprecated: whether it will be gone
    @default-cpu-type: the CPU that it has
    @default-ram-id: the name of its memory
    """

    name: str
    alias: str | None = None
    is_default: bool | None = None
    cpu_max: int
    hotpluggable_cpus: bool
    numa_mem_supported: Annotated[bool, Since("4.1")]
    deprecated: Annotated[bool, Since("4.1")]
    default_cpu_type: Annotated[str | None, Since("4.2")] = None
    default_ram_id: Annotated[str | None, Since("5.2")] = None


class CurrentMachineParams(Struct):
    """What depends on the machine's type.

    @wakeup-suspend-support: whether its guest can be woken up
    """

    wakeup_suspend_support: bool


class KvmInfo(Struct):
    """Whether KVM runs the CPUs.

    @enabled: whether it does: there are none
    @present: whether it could
    """

    enabled: bool
    present: bool


@values(since={"avr": "5.1", "loongarch64": "7.1", "rx": "5.0"})
class SysEmuTarget(QEnum):
    """The kind of machine."""

    AARCH64 = "aarch64"
    ALPHA = "alpha"
    ARM = "arm"
    AVR = "avr"
    CRIS = "cris"
    HPPA = "hppa"
    I386 = "i386"
    LOONGARCH64 = "loongarch64"
    M68K = "m68k"
    MICROBLAZE = "microblaze"
    MICROBLAZEEL = "microblazeel"
    MIPS = "mips"
    MIPS64 = "mips64"
    MIPS64EL = "mips64el"
    MIPSEL = "mipsel"
    NIOS2 = "nios2"
    OR1K = "or1k"
    PPC = "ppc"
    PPC64 = "ppc64"
    RISCV32 = "riscv32"
    RISCV64 = "riscv64"
    RX = "rx"
    S390X = "s390x"
    SH4 = "sh4"
    SH4EB = "sh4eb"
    SPARC = "sparc"
    SPARC64 = "sparc64"
    TRICORE = "tricore"
    X86_64 = "x86_64"
    XTENSA = "xtensa"
    XTENSAEB = "xtensaeb"


class TargetInfo(Struct):
    """The kind of machine.

    @arch: its architecture
    """

    arch: SysEmuTarget


class CpuInstanceProperties(Struct):
    """Where a CPU is.

    @node-id: NUMA node
    @socket-id: socket
    @die-id: die
    @cluster-id: cluster
    @core-id: core
    @thread-id: thread
    """

    node_id: int | None = None
    socket_id: int | None = None
    die_id: Annotated[int | None, Since("4.1")] = None
    cluster_id: Annotated[int | None, Since("7.1")] = None
    core_id: int | None = None
    thread_id: int | None = None


CPU = Union("CpuInfoFast", "target")


class CpuInfoFast(Struct, union=CPU):
    """A CPU.

    @cpu-index: its number
    @qom-path: where it is in the object tree
    @thread-id: the thread that runs it
    @props: where it is in the machine
    """

    cpu_index: int
    qom_path: str
    thread_id: int
    props: CpuInstanceProperties | None = None


class CpuS390State(QEnum):
    """What a mainframe's CPU does."""

    UNINITIALIZED = "uninitialized"
    STOPPED = "stopped"
    CHECK_STOP = "check-stop"
    OPERATING = "operating"
    LOAD = "load"


class CpuInfoS390(CpuInfoFast, tag="s390x"):
    """A mainframe's CPU.

    @cpu-state: what it does
    """

    cpu_state: CpuS390State


CPU.declare_empty(
    CpuInfoFast, dict.fromkeys((v for v in enum_values(SysEmuTarget) if v != "s390x"), FOREVER)
)
AnyCpu = Annotated[CpuInfoFast, CPU]


class HotpluggableCPU(Struct):
    """A place for a CPU.

    @type: of what type
    @vcpus-count: how many it is
    @props: where
    @qom-path: its path, if it is there
    """

    type: str
    vcpus_count: int
    props: CpuInstanceProperties
    qom_path: str | None = None


class MemoryInfo(Struct):
    """How much memory there is, in bytes.

    @base-memory: from the start
    @plugged-memory: that came later
    """

    base_memory: int
    plugged_memory: int | None = None


class ACPISlotType(QEnum):
    """What is in a slot."""

    DIMM = "DIMM"
    CPU = "CPU"


class ACPIOSTInfo(Struct):
    """What the guest said of a slot.

    @device: the device in it
    @slot: its name
    @slot-type: its kind
    @source: the event
    @status: the answer
    """

    device: str | None = None
    slot: str
    slot_type: ACPISlotType
    source: int
    status: int


class VncInfo(Struct):
    """A VNC server.

    @enabled: whether there is one
    @host: its address
    @family: the kind of address
    @service: its port
    @auth: how one proves who one is
    @clients: who sees it
    """

    enabled: bool
    host: str | None = None
    family: NetworkAddressFamily | None = None
    service: str | None = None
    auth: str | None = None
    clients: list[VncClientInfo] | None = None


class SpiceQueryMouseMode(QEnum):
    """Who draws the mouse."""

    CLIENT = "client"
    SERVER = "server"
    UNKNOWN = "unknown"


class SpiceInfo(Struct):
    """A SPICE server.

    @enabled: whether there is one
    @migrated: whether its clients are sent elsewhere
    @host: its address
    @port: its port
    @tls-port: its port for encrypted connections
    @auth: how one proves who one is
    @compiled-version: which one it is
    @mouse-mode: who draws the mouse
    @channels: who sees it
    """

    enabled: bool
    migrated: bool
    host: str | None = None
    port: int | None = None
    tls_port: int | None = None
    auth: str | None = None
    compiled_version: str | None = None
    mouse_mode: SpiceQueryMouseMode
    channels: list[SpiceChannel] | None = None


class MouseInfo(Struct):
    """A mouse.

    @name: its name
    @index: its number
    @current: whether it gets the events
    @absolute: whether it tells where it is
    """

    name: str
    index: int
    current: bool
    absolute: bool


class BalloonInfo(Struct):
    """What the balloon leaves.

    @actual: bytes that the guest has
    """

    actual: int


class GuidInfo(Struct):
    """A name for all time.

    @guid: it
    """

    guid: str


class IOThreadInfo(Struct):
    """An I/O thread, of which ours has but the name.

    @id: its name
    @thread-id: the thread that does its work
    @poll-max-ns: for how long it polls before it sleeps
    @poll-grow: by what that grows
    @poll-shrink: by what it shrinks
    @aio-max-batch: requests that go out together, 0: as many as QEMU likes
    """

    id: str
    thread_id: int
    poll_max_ns: int
    poll_grow: int
    poll_shrink: int
    aio_max_batch: Annotated[int, Since("6.1")]


class PRManagerInfo(Struct):
    """A helper for persistent reservations.

    @id: its name
    @connected: whether it is there
    """

    id: str
    connected: bool


YANK = Union("YankInstance", "type")


class YankInstance(Struct, union=YANK):
    """Something with connections that may hang."""


class YankInstanceBlockNode(YankInstance, tag="block-node"):
    """A node.

    @node-name: its name
    """

    node_name: str


class YankInstanceChardev(YankInstance, tag="chardev"):
    """A chardev.

    @id: its name
    """

    id: str


class YankInstanceMigration(YankInstance, tag="migration"):
    """The migration."""


AnyYankInstance = Annotated[YankInstance, YANK]


class ReplayMode(QEnum):
    """Whether what happens is written down, or read."""

    NONE = "none"
    RECORD = "record"
    PLAY = "play"


class ReplayInfo(Struct):
    """What is recorded.

    @mode: whether anything is
    @filename: where
    @icount: instructions until now
    """

    mode: ReplayMode
    filename: str | None = None
    icount: int


class TraceEventState(QEnum):
    """Whether an event is traced."""

    UNAVAILABLE = "unavailable"
    DISABLED = "disabled"
    ENABLED = "enabled"


class TraceEventInfo(Struct):
    """A trace event.

    @name: its name
    @state: whether it is traced
    @vcpu: whether each CPU has its own
    """

    name: str
    state: TraceEventState
    vcpu: bool
