"""The human monitor's views of CPUs, memory and ports, of which a machine has none.

They say what qemu-system says of a machine that has no CPU and no memory (monitor/misc.c,
monitor/hmp-cmds.c, hw/core/machine-hmp-cmds.c).
"""

from typing import Any, Final

from blockemu.commands import guest_memory, machine, machine_reports
from blockemu.commands.context import Context
from blockemu.commands.hmp_line import Flag, Format, HmpCommand, Number, Values, Word, Write
from blockemu.machine.questions import ITEMS, LOG_ITEMS
from blockemu.schema.guest_memory import DirtyRateMeasureMode

_NO_CPU: Final = "No CPU available\n"
_WIDTHS: Final = {1: "b", 2: "w"}  # of ports
_LETTERS: Final = {"'": "\\'", "\\": "\\\\", "\n": "\\n", "\r": "\\r"}


def says(text: str) -> Any:
    """Return what writes a text, whatever its arguments are."""

    async def run(context: Context, write: Write, values: Values) -> None:
        write(text)

    return run


# Memory and ports


def _number(values: Values, key: str) -> int:
    return int(values[key])


async def dump_virtual(context: Context, write: Write, values: Values) -> None:
    """Show memory as a CPU has it."""
    write("Can not dump without CPU\n")


async def dump_physical(context: Context, write: Write, values: Values) -> None:
    """Show memory: there is none at any address."""
    if values["format"] == "i":
        write("Can not dump without CPU\n")
    elif values["count"]:
        write(f"{_number(values, 'addr') & (2**64 - 1):016x}: Cannot access memory\n")


async def print_value(context: Context, write: Write, values: Values) -> None:
    """Show what an expression comes to."""
    value = _number(values, "val")
    bits = value & (2**64 - 1)
    shown = {
        "x": f"{bits:#x}" if bits else "0",
        "o": f"0{bits:o}" if bits else "0",
        "u": str(bits),
        "c": f"'{_letter(bits & 0xFFFFFFFF)}'",
    }
    write(f"{shown.get(str(values['format']), str(value))}\n")


def _letter(code: int) -> str:
    """Return a letter, or the 32 bits that are none (memory_dump's monitor_printc)."""
    letter = chr(code) if code <= 126 else ""
    if letter in _LETTERS:
        return _LETTERS[letter]
    return letter if letter >= " " else f"\\x{code:02x}"


async def read_port(context: Context, write: Write, values: Values) -> None:
    """Read a port: nobody answers."""
    size = _number(values, "size")
    width = size if size in _WIDTHS else 4
    at = _number(values, "addr")
    if "index" in values:
        at += 1
    ones = (1 << 8 * width) - 1
    write(f"port{_WIDTHS.get(size, 'l')}[{at & 0xFFFF:#06x}] = {ones:#0{2 + 2 * width}x}\n")


async def find_memory(context: Context, write: Write, values: Values) -> None:
    """Tell where the host has an address: nowhere."""
    write(f"No memory is mapped at address {_number(values, 'addr') & (2**64 - 1):#x}\n")


async def save_physical(context: Context, write: Write, values: Values) -> None:
    """Write what is at an address to a file."""
    guest_memory.pmemsave(
        context,
        val=_number(values, "val"),
        size=_number(values, "size"),
        filename=str(values["filename"]),
    )


# CPUs


async def info_registers(context: Context, write: Write, values: Values) -> None:
    """Show registers of all CPUs, of one, or of the one that is looked at."""
    if values["all"]:
        return
    write(f"CPU#{values['vcpu']} not available\n" if "vcpu" in values else _NO_CPU)


async def choose_cpu(context: Context, write: Write, values: Values) -> None:
    """Say which CPU is looked at."""
    hardware, number = context.emu.devices.hardware, _number(values, "index")
    if 0 <= number < len(hardware.cpus):
        hardware.looked_at = number
    else:
        write("invalid CPU index\n")


async def debug(context: Context, write: Write, values: Values) -> None:
    """Wait for a debugger, which would find no CPU."""
    where = values["device"] or "tcp::1234"
    write("gdbstub: meaningless to attach gdb to a machine without any CPU.\n")
    write(f"Could not open gdbserver on device '{where}'\n")


async def step(context: Context, write: Write, values: Values) -> None:
    """Let CPUs take one step at a time, or not."""
    wanted = str(values["option"])
    if wanted in ("", "on", "off"):
        context.emu.machine.single_steps = wanted != "off"
    else:
        write(f"unexpected option {wanted}\n")


async def boot_from(context: Context, write: Write, values: Values) -> None:
    """Say what a guest is booted from."""
    order = str(values["bootdevice"])
    if context.emu.machine.type in ("none", "x-remote"):
        write("no function defined to set boot device list for this architecture\n")
        return
    for i, letter in enumerate(order):
        if not "a" <= letter <= "p":
            write(f"Invalid boot device '{letter}'\n")
            return
        if letter in order[:i]:
            write(f"Boot device '{letter}' was given twice\n")
            return
    write(f"boot device list now set to {order}\n")


# How much a guest writes


async def measure(context: Context, write: Write, values: Values) -> None:
    """Measure how much a guest writes."""
    if values["ring"] and values["bitmap"]:
        write("Either dirty ring or dirty bitmap can be specified!\n")
        return
    modes = DirtyRateMeasureMode
    mode = modes.DIRTY_RING if values["ring"] else modes.PAGE_SAMPLING
    if values["bitmap"]:
        mode = modes.DIRTY_BITMAP
    seconds = _number(values, "second")
    pages = _number(values, "pages") if "pages" in values else None
    guest_memory.calc_dirty_rate(context, calc_time=seconds, sample_pages=pages, mode=mode)
    write(f"Starting dirty rate measurement with period {seconds} seconds\n")
    write("[Please use 'info dirty_rate' to check results]\n")


async def limit_writes(context: Context, write: Write, values: Values) -> None:
    """Limit how much CPUs write."""
    guest_memory.set_vcpu_dirty_limit(context, dirty_rate=_number(values, "dirty_rate"))


# Logs and profiles


async def log(context: Context, write: Write, values: Values) -> None:
    """Say what is logged: no CPU does anything that could be."""
    for item in str(values["items"]).split(","):
        if item.startswith("trace:"):
            if item != "trace:help":
                write(f"warning: trace event '{item[6:]}' does not exist\n")
        elif item not in ITEMS:
            write(LOG_ITEMS)
            return


async def profile(context: Context, write: Write, values: Values) -> None:
    """Say whether it is measured how long threads wait for each other; ours do not."""
    word, state = str(values["op"]), context.emu.machine
    if not word:
        write(f"sync-profile is {'on' if state.profiled else 'off'}\n")
    elif word in ("on", "off"):
        state.profiled = word == "on"
    elif word != "reset":
        write(f"Error: Invalid parameter '{word}'\n")


async def info_profile(context: Context, write: Write, values: Values) -> None:
    """Show how long threads waited for each other."""
    rule = "-" * 79
    head = "Type               Object  Call site  Wait Time (s)         Count  Average (us)"
    write(f"{head}\n{rule}\n{rule}\n")


async def info_history(context: Context, write: Write, values: Values) -> None:
    """Show the lines that were typed; none are where a program speaks."""
    lines: list[str] = getattr(context, "history", [])
    write("".join(f"{i}: '{line}'\n" for i, line in enumerate(lines)))


async def info_tree(context: Context, write: Write, values: Values) -> None:
    """Show what is at which address: nothing."""
    owner = " parent:{obj path=/machine/unattached}" if values["owner"] else ""
    ports = f"  {0:016x}-{0xFFFF:016x} (prio 0, i/o): io{owner}\n"
    if values["flat"]:
        write('FlatView #0\n AS "memory", root: system\n Root memory region: (none)\n')
        write("  No rendered FlatView\n\n")
        write(f'FlatView #1\n AS "I/O", root: io\n Root memory region: io\n{ports}\n')
        return
    whole = f"  {0:016x}-{2**64 - 1:016x} (prio 0, i/o): system{owner}\n"
    write(f"address-space: memory\n{whole}\naddress-space: I/O\n{ports}\n")


async def info_jit(context: Context, write: Write, values: Values) -> None:
    """Tell of the code that a guest's was turned into."""
    machine_reports.x_query_jit(context)


# What was recorded


async def replay(context: Context, write: Write, values: Values) -> None:
    """Stop at an instruction of what was recorded: nothing was."""
    write(f"{machine_reports.NotPlaying()}\n")


async def replay_no_more(context: Context, write: Write, values: Values) -> None:
    """Do not stop at an instruction."""
    write(f"{machine_reports.NoBreakpoint()}\n")


async def replay_to(context: Context, write: Write, values: Values) -> None:
    """Go to an instruction of what was recorded."""
    write(f"{machine_reports.NoSeeking()}\n")


async def leave_preconfig(context: Context, write: Write, values: Values) -> None:
    """Go on with making the machine."""
    machine.x_exit_preconfig(context)


_ADDRESS: Final = (Number("addr"),)
_SHOWN: Final = (Format(), Number("addr"))
_COUNT: Final = (Number("icount"),)
_MCE: Final = ("cpu_index", "bank", "status", "mcg_status", "addr", "misc")
INFO = (
    HmpCommand("history", (), "", "show the command line history", info_history),
    HmpCommand("jit", (), "", "show dynamic compiler info", info_jit),
    HmpCommand(
        "lapic",
        (Number("apic-id", optional=True, narrow=True),),
        "[apic-id]",
        "show a CPU's interrupt controller",
        says(_NO_CPU),
    ),
    HmpCommand("mem", (), "", "show the active virtual memory mappings", says(_NO_CPU)),
    HmpCommand(
        "mtree",
        (
            Flag("flat", "f"),
            Flag("dispatch_tree", "d"),
            Flag("owner", "o"),
            Flag("disabled", "D"),
        ),
        "[-f][-d][-o][-D]",
        "show what is at which address; -f: flat, -o: with owners",
        info_tree,
    ),
    HmpCommand("pic", (), "", "show PIC state", says("")),
    HmpCommand(
        "registers",
        (Flag("all", "a"), Number("vcpu", optional=True, narrow=True)),
        "[-a|vcpu]",
        "show the registers of a CPU; -a: of all",
        info_registers,
    ),
    HmpCommand(
        "sync-profile",
        (Flag("mean", "m"), Flag("no_coalesce", "n"), Number("max", optional=True, narrow=True)),
        "[-m] [-n] [max]",
        "show how long threads waited for each other",
        info_profile,
    ),
    HmpCommand("tlb", (), "", "show virtual to physical memory mappings", says(_NO_CPU)),
)
COMMANDS = (
    HmpCommand(
        "boot_set",
        (Word("bootdevice"),),
        "bootdevice",
        "define new values for the boot device list",
        boot_from,
    ),
    HmpCommand(
        "calc_dirty_rate",
        (
            Flag("ring", "r"),
            Flag("bitmap", "b"),
            Number("second"),
            Number("pages", optional=True),
        ),
        "[-r] [-b] second [sample_pages_per_GB]",
        "measure how much the guest writes",
        measure,
    ),
    HmpCommand(
        "cancel_vcpu_dirty_limit",
        (Number("cpu_index", optional=True),),
        "[cpu_index]",
        "do not limit how much CPUs write",
        says("[Please use 'info vcpu_dirty_limit' to query dirty limit for virtual CPU]\n"),
    ),
    HmpCommand(
        "set_vcpu_dirty_limit",
        (Number("dirty_rate"), Number("cpu_index", optional=True)),
        "dirty_rate [cpu_index]",
        "limit how much CPUs write",
        limit_writes,
    ),
    HmpCommand(
        "cpu",
        (Number("index", narrow=True),),
        "index",
        "set the default CPU",
        choose_cpu,
    ),
    HmpCommand("exit_preconfig", (), "", "exit the preconfig state", leave_preconfig),
    HmpCommand(
        "gdbserver",
        (Word("device", optional=True),),
        "[device]",
        "wait for a debugger (default 'tcp::1234'), or with 'none' no more",
        debug,
    ),
    HmpCommand(
        "gpa2hpa", _ADDRESS, "addr", "print the host's physical address of memory", find_memory
    ),
    HmpCommand(
        "gpa2hva", _ADDRESS, "addr", "print the host's virtual address of memory", find_memory
    ),
    HmpCommand(
        "gva2gpa",
        _ADDRESS,
        "addr",
        "print the guest's physical address of a virtual one",
        says("No cpu\n"),
    ),
    HmpCommand(
        "i",
        (Format(), Number("addr", narrow=True), Number("index", dotted=True, narrow=True)),
        "/fmt addr",
        "I/O port read",
        read_port,
    ),
    HmpCommand(
        "o",
        (Format(), Number("addr", narrow=True), Number("val", narrow=True)),
        "/fmt addr value",
        "I/O port write",
        says(""),
    ),
    HmpCommand(
        "log", (Word("items"),), "item1[,...]", "activate logging of the specified items", log
    ),
    HmpCommand(
        "logfile", (Word("filename", "filename"),), "filename", "say where logs go", says("")
    ),
    HmpCommand(
        "mce",
        (Flag("broadcast", "b"), *(Number(key, narrow=key in _MCE[:2]) for key in _MCE)),
        "[-b] cpu bank status mcgstatus addr misc",
        "tell CPUs that the hardware is broken",
        says(""),
    ),
    HmpCommand(
        "pmemsave",
        (Number("val"), Number("size", narrow=True), Word("filename")),
        "addr size file",
        "save to disk physical memory dump starting at 'addr' of size 'size'",
        save_physical,
    ),
    HmpCommand(
        "print|p",
        (Format(), Number("val")),
        "/fmt expr",
        "print expression value (use $reg for CPU register access)",
        print_value,
    ),
    HmpCommand(
        "replay_break",
        _COUNT,
        "icount",
        "set breakpoint at the specified instruction count",
        replay,
    ),
    HmpCommand("replay_delete_break", (), "", "remove replay breakpoint", replay_no_more),
    HmpCommand(
        "replay_seek",
        _COUNT,
        "icount",
        "replay execution to the specified instruction count",
        replay_to,
    ),
    HmpCommand(
        "singlestep",
        (Word("option", optional=True),),
        "[on|off]",
        "run emulation in singlestep mode or switch to normal mode",
        step,
    ),
    HmpCommand(
        "sum",
        (Number("start", narrow=True), Number("size", narrow=True)),
        "addr size",
        "compute the checksum of a memory region",
        says("00000\n"),
    ),
    HmpCommand(
        "sync-profile",
        (Word("op", optional=True),),
        "[on|off|reset]",
        "measure how long threads wait for each other, or tell whether that is measured",
        profile,
    ),
    HmpCommand("x", _SHOWN, "/fmt addr", "virtual memory dump starting at 'addr'", dump_virtual),
    HmpCommand("xp", _SHOWN, "/fmt addr", "physical memory dump starting at 'addr'", dump_physical),
)
