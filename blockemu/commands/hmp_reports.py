"""The human monitor's commands about memory, keys, statistics: what a machine has none of."""

from typing import Any

from blockemu.commands import displays, guest_memory, machine, machine_reports
from blockemu.commands.context import Context
from blockemu.commands.hmp_line import Flag, HmpCommand, Number, Values, Word, Write
from blockemu.commands.statistics import query_blockstats
from blockemu.errors import QmpError
from blockemu.schema.displays import IntWrapper, KeyValue, QKeyCode, QKeyCodeWrapper

_COUNTS = """
rd_bytes wr_bytes rd_operations wr_operations flush_operations wr_total_time_ns
rd_total_time_ns flush_total_time_ns rd_merged wr_merged idle_time_ns
"""


async def info_blockstats(context: Context, write: Write, values: Values) -> None:
    """Tell what drives have done."""
    for each in query_blockstats(context):
        if each.device is None:
            continue
        shown = (f"{name}={getattr(each.stats, name) or 0}" for name in _COUNTS.split())
        write(f"{each.device}: {' '.join(shown)}\n")


async def info_dump(context: Context, write: Write, values: Values) -> None:
    """Tell how far a dump is."""
    write(f"Status: {guest_memory.query_dump(context).status}\n")


async def dump_memory(context: Context, write: Write, values: Values) -> None:
    """Write the guest's memory to a file."""
    if sum(bool(values[letter]) for letter in "zlsw") > 1:
        write("Error: only one of '-z|-l|-s|-w' can be set\n")
        return
    guest_memory.dump_guest_memory(context, paging=False, protocol=f"file:{values['filename']}")


async def send_key(context: Context, write: Write, values: Values) -> None:
    """Press keys."""
    keys: list[KeyValue] = []
    for name in str(values["keys"]).split("-"):
        try:
            if name.startswith("0x"):
                keys.append(IntWrapper(data=int(name, 16)))
            else:
                keys.append(QKeyCodeWrapper(data=QKeyCode("less" if name == "<" else name)))
        except ValueError:
            write(f"invalid parameter: {name}\n")
            return
    displays.send_key(context, keys=keys)


async def info_dirty_rate(context: Context, write: Write, values: Values) -> None:
    """Tell how much the guest writes."""
    info = guest_memory.query_dirty_rate(context)
    rate = "(not ready)" if info.dirty_rate is None else f"{info.dirty_rate} (MB/s)"
    write(f"Status: {info.status}\nStart Time: {info.start_time} (ms)\n")
    write(f"Sample Pages: {info.sample_pages} (per GB)\nPeriod: {info.calc_time} (sec)\n")
    write(f"Mode: {info.mode}\nDirty rate: {rate}\n")


async def info_stats(context: Context, write: Write, values: Values) -> None:
    """Show statistics: there are none."""
    if values["target"] not in ("vm", "vcpu"):
        write(f"invalid stats target {values['target']}\n")


async def info_sgx(context: Context, write: Write, values: Values) -> None:
    """Tell why there are no enclaves."""
    try:
        guest_memory.query_sgx(context)
    except QmpError as e:
        write(f"{e}\n")


async def info_virtio(context: Context, write: Write, values: Values) -> None:
    """List the virtio devices."""
    found = machine_reports.x_query_virtio(context)
    write("".join(f"{each.path} [{each.name}]\n" for each in found) or "No VirtIO devices\n")


def _says(text: str) -> Any:
    async def run(context: Context, write: Write, values: Values) -> None:
        write(text)

    return run


def _report(query: Any) -> Any:
    async def run(context: Context, write: Write, values: Values) -> None:
        write(query(context).human_readable_text)

    return run


def _does(what: Any) -> Any:
    async def run(context: Context, write: Write, values: Values) -> None:
        what(context, **values)

    return run


INFO = (
    HmpCommand("blockstats", (), "", "show block device statistics", info_blockstats),
    HmpCommand("capture", (), "", "show capture information", _says("")),
    HmpCommand("dirty_rate", (), "", "show dirty rate information", info_dirty_rate),
    HmpCommand("dump", (), "", "Display the latest dump status", info_dump),
    HmpCommand(
        "irq",
        (),
        "",
        "show the interrupts statistics (if available)",
        _report(machine_reports.x_query_irq),
    ),
    HmpCommand(
        "opcount",
        (),
        "",
        "show dynamic compiler opcode counters",
        _report(machine_reports.x_query_opcount),
    ),
    HmpCommand(
        "profile",
        (),
        "",
        "show profiling information",
        _report(machine_reports.x_query_profile),
    ),
    HmpCommand(
        "ramblock",
        (),
        "",
        "Display system ramblock information",
        _report(machine_reports.x_query_ramblock),
    ),
    HmpCommand("rdma", (), "", "show RDMA state", _report(machine_reports.x_query_rdma)),
    HmpCommand("sev", (), "", "show SEV information", _says("SEV is not enabled\n")),
    HmpCommand("sgx", (), "", "show intel SGX information", info_sgx),
    HmpCommand(
        "stats",
        (Word("target"), Word("names", optional=True), Word("provider", optional=True)),
        "target [names] [provider]",
        "show statistics for the given target (vm or vcpu); optionally filter by"
        "name (comma-separated list, or * for all) and provider",
        info_stats,
    ),
    HmpCommand("usb", (), "", "show guest USB devices", _report(machine_reports.x_query_usb)),
    HmpCommand(
        "vcpu_dirty_limit",
        (),
        "",
        "show dirty page limit information of all vCPU",
        _says("Dirty page limit not enabled!\n"),
    ),
    HmpCommand("virtio", (), "", "List all available virtio devices", info_virtio),
)
COMMANDS = (
    HmpCommand(
        "dump-guest-memory",
        (
            *(Flag(letter, letter) for letter in "pdwzls"),
            Word("filename", "filename"),
            Number("begin", optional=True),
            Number("length", optional=True),
        ),
        "[-p] [-d] [-z|-l|-s|-w] filename [begin length]",
        "dump guest memory into file 'filename'.\n\t\t\t"
        "-p: do paging to get guest's memory mapping.\n\t\t\t"
        "-d: return immediately (do not wait for completion).\n\t\t\t"
        "-z: dump in kdump-compressed format, with zlib compression.\n\t\t\t"
        "-l: dump in kdump-compressed format, with lzo compression.\n\t\t\t"
        "-s: dump in kdump-compressed format, with snappy compression.\n\t\t\t"
        "-w: dump in Windows crashdump format (can be used instead of ELF-dump converting),\n"
        "\t\t\t    for Windows x86 and x64 guests with vmcoreinfo driver only.\n\t\t\t"
        "begin: the starting physical address.\n\t\t\t"
        "length: the memory size, in bytes.",
        dump_memory,
    ),
    HmpCommand(
        "memsave",
        (Number("val"), Number("size", narrow=True), Word("filename")),
        "addr size file",
        "save to disk virtual memory dump starting at 'addr' of size 'size'",
        _says("No CPU available\n"),
    ),
    HmpCommand(
        "sendkey",
        (Word("keys"), Number("hold-time", optional=True, narrow=True)),
        "keys [hold_ms]",
        "send keys to the VM (e.g. 'sendkey ctrl-alt-f1', default hold time=100 ms)",
        send_key,
    ),
    HmpCommand(
        "dumpdtb",
        (Word("filename", "filename"),),
        "filename",
        "dump the FDT in dtb format to 'filename'",
        _does(guest_memory.dumpdtb),
    ),
    HmpCommand(
        "balloon",
        (Number("value", mega=True),),
        "target",
        "request VM to change its memory allocation (in MB)",
        _does(machine.balloon),
    ),
    HmpCommand(
        "x_colo_lost_heartbeat",
        (),
        "",
        "Tell COLO that heartbeat is lost,\n\t\t\ta failover or takeover is needed.",
        _does(guest_memory.x_colo_lost_heartbeat),
    ),
)
