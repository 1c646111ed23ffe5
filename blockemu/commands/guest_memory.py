"""A guest's memory, which there is none of, in QEMU's words for a machine without any."""

import errno
import os
import time
from typing import TYPE_CHECKING, Final

from blockemu.commands.context import Context
from blockemu.commands.machine_facts import FeatureDisabled
from blockemu.errors import InvalidParameterValue, QmpError
from blockemu.qmp_server.dispatch import command
from blockemu.schema.guest_memory import (
    AnyMemoryDevice,
    DirtyLimitInfo,
    DirtyRateInfo,
    DirtyRateMeasureMode,
    DirtyRateStatus,
    DumpGuestMemoryCapability,
    DumpGuestMemoryFormat,
    DumpQueryResult,
    DumpStatus,
    Memdev,
    SevAttestationReport,
    SevCapability,
    SevInfo,
    SevLaunchMeasureInfo,
    SevState,
    SGXInfo,
)
from blockemu.schema.run_state import RunState

if TYPE_CHECKING:
    from blockemu.objects.memory import MemoryBackend

_CPU: Final = ("cpu-index", "a CPU number")


class NoMemory(QmpError):
    """There is nothing to dump."""

    template = "dump: no guest memory to dump"


class BadDump(QmpError):
    """A parameter that makes no sense."""

    template = "Invalid parameter '{}'"


class NotOpened(QmpError):
    """(file, why)."""

    template = "Could not open '{}': {}"


class NotWritten(QmpError):
    """A file that takes no more."""

    template = "An IO error has occurred"


class NoTree(QmpError):
    """Machines of this kind describe themselves in other ways."""

    template = "This machine doesn't have a FDT"


class NoRing(QmpError):
    """KVM would have to say who writes what."""

    template = (
        "dirty page limit feature requires KVM with accelerator property 'dirty-ring-size' set'"
    )


class BadTime(QmpError):
    """Too short or too long."""

    template = "calc-time is out of range[1, 60]."


class PagesOfRing(QmpError):
    """A ring is no sample."""

    template = "either sample-pages or dirty-ring can be specified."


class BadPages(QmpError):
    """Too few or too many."""

    template = "sample-pages is out of range[128, 16384]."


class NoSuchMode(QmpError):
    """It would take KVM: (mode)."""

    template = "mode {} is not enabled, use other method instead."


class NotSev(QmpError):
    """The guest is not encrypted."""

    template = "SEV is not enabled"


class NoSecrets(QmpError):
    """The guest is not encrypted."""

    template = "SEV not enabled for guest"


class NoMeasurement(QmpError):
    """The guest is not encrypted."""

    template = "SEV launch measurement is not available"


class NoKvm(QmpError):
    """KVM would have to encrypt it."""

    template = "KVM not enabled"


class NoEnclaves(QmpError):
    """KVM would have to run them."""

    template = "SGX is not enabled in KVM"


class NoRegions(QmpError):
    """The machine has no memory for them."""

    template = "No EPC regions defined, SGX not available"


class NotAPc(QmpError):
    """The machine is of another kind."""

    template = "SGX is only supported on PC machines"


@command(since="1.2")
def dump_guest_memory(
    context: Context,
    *,
    paging: bool,
    protocol: str,
    detach: bool | None = None,
    begin: int | None = None,
    length: int | None = None,
    format: DumpGuestMemoryFormat | None = None,
) -> None:
    """Write the guest's memory to a file; there is none.

    @paging: whether as the guest sees it
    @protocol: ``file:NAME`` or ``fd:NAME``
    @detach: whether not to wait for the end
    @begin: the first address
    @length: bytes
    @format: the file's format
    """
    if not protocol.startswith(("file:", "fd:")):
        raise BadDump("protocol")
    machine = context.emu.machine
    machine.dump_failed = True
    if machine.running:
        machine.stop(RunState.SAVE_VM)
        machine.resume()
    raise NoMemory


@command(since="2.6")
def query_dump(context: Context) -> DumpQueryResult:
    """Tell how far a dump is: none has succeeded."""
    failed = context.emu.machine.dump_failed
    status = DumpStatus.FAILED if failed else DumpStatus.NONE
    return DumpQueryResult(status=status, completed=0, total=0)


@command(since="2.0")
def query_dump_guest_memory_capability(context: Context) -> DumpGuestMemoryCapability:
    """List the formats of dumps."""
    kinds = DumpGuestMemoryFormat
    return DumpGuestMemoryCapability(formats=[kinds.ELF, kinds.KDUMP_ZLIB, kinds.WIN_DMP])


@command(since="7.2")
def dumpdtb(context: Context, *, filename: str) -> None:
    """Write the machine's description to a file; it has none.

    @filename: the file
    """
    raise NoTree


@command(since="0.14")
def memsave(
    context: Context, *, val: int, size: int, filename: str, cpu_index: int | None = None
) -> None:
    """Write a CPU's memory to a file; there is no CPU.

    @val: the first address
    @size: bytes
    @filename: the file
    @cpu-index: the CPU
    """
    raise InvalidParameterValue(*_CPU)


@command(since="0.14")
def pmemsave(context: Context, *, val: int, size: int, filename: str) -> None:
    """Write what is at an address to a file: zeroes, since there is no memory.

    @val: the first address
    @size: bytes
    @filename: the file
    """
    try:
        with open(filename, "wb") as file:  # noqa: PTH123 (pathlib is long to import)
            if size < 0:
                raise BadDump("size")  # QEMU dies of it
            file.truncate(size)
    except OSError as e:
        opened = e.filename is None
        raise (
            NotWritten if opened else NotOpened(filename, os.strerror(e.errno or errno.EIO))
        ) from e


@command(since="2.1", allow_preconfig=True)
def query_memdev(context: Context) -> list[Memdev]:
    """List what memory for the guest was made of."""
    if not context.emu.objects.of_machine:
        return []
    from blockemu.machine.hardware import MachineMemory
    from blockemu.objects.memory import MemoryBackend  # few ask

    found = list(context.emu.qom.container("objects").children)[::-1]
    backends = ((o.name, o.backend if isinstance(o, MachineMemory) else o) for o in found)
    return [_describe_memory(name, o) for name, o in backends if isinstance(o, MemoryBackend)]


def _describe_memory(name: str, each: "MemoryBackend") -> Memdev:
    return Memdev(
        id=name,
        size=each.size,
        merge=each.merge,
        dump=each.dump,
        prealloc=each.prealloc,
        share=each.share,
        reserve=each.reserve,
        host_nodes=each.host_nodes,
        policy=each.policy,
    )


@command(since="2.1")
def query_memory_devices(context: Context) -> list[AnyMemoryDevice]:
    """List memory that is a device: none."""
    return []


@command(since="5.2")
def calc_dirty_rate(
    context: Context,
    *,
    calc_time: int,
    sample_pages: int | None = None,
    mode: DirtyRateMeasureMode | None = None,
) -> None:
    """Measure how much the guest writes to its memory: nothing, which is known at once.

    @calc-time: for how long, in seconds
    @sample-pages: pages of each GiB to look at
    @mode: how
    """
    if not 1 <= calc_time <= 60:
        raise BadTime
    if sample_pages is not None and mode is DirtyRateMeasureMode.DIRTY_RING:
        raise PagesOfRing
    if sample_pages is not None and not 128 <= sample_pages <= 16384:
        raise BadPages
    if mode is DirtyRateMeasureMode.DIRTY_RING:
        raise NoSuchMode(mode)
    pages = 512 if sample_pages is None else sample_pages
    context.emu.machine.measured = int(time.monotonic()), calc_time, pages


@command(since="5.2")
def query_dirty_rate(context: Context) -> DirtyRateInfo:
    """Tell how much the guest writes to its memory."""
    measured = context.emu.machine.measured
    start, duration, pages = measured or (0, 0, 0)
    return DirtyRateInfo(
        dirty_rate=0 if measured else None,
        status=DirtyRateStatus.MEASURED if measured else DirtyRateStatus.UNSTARTED,
        start_time=start,
        calc_time=duration,
        sample_pages=pages,
        mode=DirtyRateMeasureMode.PAGE_SAMPLING,
    )


@command(since="7.1")
def set_vcpu_dirty_limit(
    context: Context, *, cpu_index: int | None = None, dirty_rate: int
) -> None:
    """Limit how much a CPU writes; there is none.

    @cpu-index: the CPU
    @dirty-rate: MiB a second
    """
    raise NoRing


@command(since="7.1")
def cancel_vcpu_dirty_limit(context: Context, *, cpu_index: int | None = None) -> None:
    """Limit no more how much a CPU writes; there is none.

    @cpu-index: the CPU
    """


@command(since="7.1")
def query_vcpu_dirty_limit(context: Context) -> list[DirtyLimitInfo]:
    """List the limits of CPUs: none."""
    return []


@command(since="2.12")
def query_sev(context: Context) -> SevInfo:
    """Tell how the guest's memory is encrypted: it is not."""
    return SevInfo(
        enabled=False,
        api_major=0,
        api_minor=0,
        build_id=0,
        policy=0,
        state=SevState.UNINIT,
        handle=0,
    )


@command(since="2.12")
def query_sev_launch_measure(context: Context) -> SevLaunchMeasureInfo:
    """Tell what an encrypted guest was started with."""
    raise NoMeasurement


@command(since="2.12")
def query_sev_capabilities(context: Context) -> SevCapability:
    """Tell what encryption the host can do."""
    raise NoKvm


@command(since="6.0")
def sev_inject_launch_secret(
    context: Context, *, packet_header: str, secret: str, gpa: int | None = None
) -> None:
    """Give an encrypted guest a secret.

    @packet-header: what goes before it
    @secret: the secret
    @gpa: where to put it
    """
    raise NoSecrets


@command(since="6.1")
def query_sev_attestation_report(context: Context, *, mnonce: str) -> SevAttestationReport:
    """Have an encrypted guest report.

    @mnonce: a number used once
    """
    raise NotSev


@command(since="6.2")
def query_sgx(context: Context) -> SGXInfo:
    """Tell what enclaves there may be: none."""
    raise NotAPc if context.emu.machine.type == "none" else NoRegions


@command(since="6.2")
def query_sgx_capabilities(context: Context) -> SGXInfo:
    """Tell what enclaves the host may have."""
    raise NoEnclaves


@command(since="3.0", features=("unstable",))
def x_colo_lost_heartbeat(context: Context) -> None:
    """Take over from another machine; nobody asked for that."""
    raise FeatureDisabled("colo")
