"""What is told of a guest's memory and of what protects it (qapi/dump.json, machine*.json)."""

from typing import Annotated

from blockemu.qmp_server.qapi import (
    U16,
    U64,
    Deprecated,
    QEnum,
    Since,
    Struct,
    Union,
)


class DumpGuestMemoryFormat(QEnum):
    """A format of dumps."""

    ELF = "elf"
    KDUMP_ZLIB = "kdump-zlib"
    KDUMP_LZO = "kdump-lzo"
    KDUMP_SNAPPY = "kdump-snappy"
    WIN_DMP = "win-dmp"


class DumpStatus(QEnum):
    """How far a dump is."""

    NONE = "none"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"


class DumpQueryResult(Struct):
    """How far a dump is.

    @status: how far
    @completed: bytes written
    @total: bytes in all
    """

    status: DumpStatus
    completed: int
    total: int


class DumpGuestMemoryCapability(Struct):
    """What dumps there may be.

    @formats: their formats
    """

    formats: list[DumpGuestMemoryFormat]


class HostMemPolicy(QEnum):
    """Where memory is."""

    DEFAULT = "default"
    PREFERRED = "preferred"
    BIND = "bind"
    INTERLEAVE = "interleave"


class Memdev(Struct):
    """Memory for a guest.

    @id: its name
    @size: bytes
    @merge: whether equal pages are merged
    @dump: whether it is in core dumps
    @prealloc: whether it is there from the start
    @share: whether it is shared
    @reserve: whether swap space is kept for it
    @host-nodes: the host's nodes that it is on
    @policy: how it is spread over them
    """

    id: str | None = None
    size: int
    merge: bool
    dump: bool
    prealloc: bool
    share: bool
    reserve: Annotated[bool | None, Since("6.1")] = None
    host_nodes: list[U16]
    policy: HostMemPolicy


MEMORY_DEVICE = Union("MemoryDeviceInfo", "type")


class MemoryDeviceInfo(Struct, union=MEMORY_DEVICE):
    """Memory that is a device."""


class PCDIMMDeviceInfo(Struct):
    """A module.

    @id: its name
    @addr: where it is
    @size: bytes
    @slot: its slot
    @node: its node
    @memdev: what it is made of
    @hotplugged: whether it was plugged in later
    @hotpluggable: whether it could be
    """

    id: str | None = None
    addr: int
    size: int
    slot: int
    node: int
    memdev: str
    hotplugged: bool
    hotpluggable: bool


class VirtioPMEMDeviceInfo(Struct):
    """Memory that stays.

    @id: its name
    @memaddr: where it is
    @size: bytes
    @memdev: what it is made of
    """

    id: str | None = None
    memaddr: U64
    size: U64
    memdev: str


class VirtioMEMDeviceInfo(Struct):
    """Memory that grows.

    @id: its name
    @memaddr: where it is
    @requested-size: bytes wanted
    @size: bytes
    @max-size: bytes at most
    @block-size: bytes of a step
    @node: its node
    @memdev: what it is made of
    """

    id: str | None = None
    memaddr: U64
    requested_size: U64
    size: U64
    max_size: U64
    block_size: U64
    node: int
    memdev: str


class SgxEPCDeviceInfo(Struct):
    """Memory of enclaves.

    @id: its name
    @memaddr: where it is
    @size: bytes
    @node: its node
    @memdev: what it is made of
    """

    id: str | None = None
    memaddr: U64
    size: U64
    node: Annotated[int, Since("7.0")]
    memdev: str


class PCDIMMDeviceInfoWrapper(MemoryDeviceInfo, tag="dimm"):
    """A module.

    @data: which
    """

    data: PCDIMMDeviceInfo


class NVDIMMDeviceInfoWrapper(MemoryDeviceInfo, tag="nvdimm"):
    """A module that keeps what is in it.

    @data: which
    """

    data: PCDIMMDeviceInfo


class VirtioPMEMDeviceInfoWrapper(MemoryDeviceInfo, tag="virtio-pmem"):
    """Memory that stays.

    @data: which
    """

    data: VirtioPMEMDeviceInfo


class VirtioMEMDeviceInfoWrapper(MemoryDeviceInfo, tag="virtio-mem", since="5.1"):
    """Memory that grows.

    @data: which
    """

    data: VirtioMEMDeviceInfo


class SgxEPCDeviceInfoWrapper(MemoryDeviceInfo, tag="sgx-epc", since="6.2"):
    """Memory of enclaves.

    @data: which
    """

    data: SgxEPCDeviceInfo


AnyMemoryDevice = Annotated[MemoryDeviceInfo, MEMORY_DEVICE]


class DirtyRateStatus(QEnum):
    """How far the measuring of writes to memory is."""

    UNSTARTED = "unstarted"
    MEASURING = "measuring"
    MEASURED = "measured"


class DirtyRateMeasureMode(QEnum):
    """How writes to memory are measured."""

    PAGE_SAMPLING = "page-sampling"
    DIRTY_RING = "dirty-ring"
    DIRTY_BITMAP = "dirty-bitmap"


class DirtyRateVcpu(Struct):
    """How much a CPU writes.

    @id: its number
    @dirty-rate: MiB a second
    """

    id: int
    dirty_rate: int


class DirtyRateInfo(Struct):
    """How much the guest writes to its memory.

    @dirty-rate: MiB a second
    @status: how far the measuring is
    @start-time: when it began, in seconds
    @calc-time: how long it takes, in seconds
    @sample-pages: pages of each GiB that are looked at
    @mode: how it is measured
    @vcpu-dirty-rate: how much each CPU writes
    """

    dirty_rate: int | None = None
    status: DirtyRateStatus
    start_time: int
    calc_time: int
    sample_pages: Annotated[U64, Since("6.1")]
    mode: Annotated[DirtyRateMeasureMode, Since("6.2")]
    vcpu_dirty_rate: Annotated[list[DirtyRateVcpu] | None, Since("6.2")] = None


class DirtyLimitInfo(Struct):
    """How much a CPU may write.

    @cpu-index: its number
    @limit-rate: MiB a second
    @current-rate: what it does write
    """

    cpu_index: int
    limit_rate: U64
    current_rate: U64


class SevState(QEnum):
    """What an encrypted guest does."""

    UNINIT = "uninit"
    LAUNCH_UPDATE = "launch-update"
    LAUNCH_SECRET = "launch-secret"
    RUNNING = "running"
    SEND_UPDATE = "send-update"
    RECEIVE_UPDATE = "receive-update"


class SevInfo(Struct):
    """How the guest's memory is encrypted.

    @enabled: whether it is
    @api-major: version of the firmware
    @api-minor: version of the firmware
    @build-id: build of the firmware
    @policy: what the guest allows
    @state: what the guest does
    @handle: the guest's number
    """

    enabled: bool
    api_major: int
    api_minor: int
    build_id: int
    policy: int
    state: SevState
    handle: int


class SevLaunchMeasureInfo(Struct):
    """What an encrypted guest was started with.

    @data: the measurement
    """

    data: str


class SevCapability(Struct):
    """What encryption the host can do.

    @pdh: its key
    @cert-chain: the certificates of that
    @cpu0-id: its first CPU
    @cbitpos: the bit that says that a page is encrypted
    @reduced-phys-bits: bits of addresses that this costs
    """

    pdh: str
    cert_chain: str
    cpu0_id: Annotated[str, Since("7.1")]
    cbitpos: int
    reduced_phys_bits: int


class SevAttestationReport(Struct):
    """A report of an encrypted guest.

    @data: the report
    """

    data: str


class SGXEPCSection(Struct):
    """Memory of enclaves.

    @node: its node
    @size: bytes
    """

    node: int
    size: U64


class SGXInfo(Struct):
    """What enclaves there may be.

    @sgx: whether there are any
    @sgx1: whether they are of the first version
    @sgx2: whether they are of the second version
    @flc: whether launching them may be controlled
    @section-size: bytes in all
    @sections: their memory
    """

    sgx: bool
    sgx1: bool
    sgx2: bool
    flc: bool
    section_size: Annotated[U64, Deprecated("7.0")]
    sections: Annotated[list[SGXEPCSection], Since("7.0")]
