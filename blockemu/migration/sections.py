"""The sections that a machine without memory has in a stream, without I/O."""

from typing import Final

from blockemu.migration import wire

BLOCKS: Final = 1  # numbers of the sections
RAM: Final = 2
BITMAPS: Final = 3
TIMER: Final = 0
GLOBAL_STATE: Final = 4
DESCRIPTION: Final = (
    '{"page_size": 4096, "devices": ['
    '{"name": "timer", "instance_id": 0, "vmsd_name": "timer", "version": 2, "fields": ['
    '{"name": "cpu_ticks_offset", "type": "int64", "size": 8}, '
    '{"name": "unused", "type": "unused_buffer", "size": 8}, '
    '{"name": "cpu_clock_offset", "type": "int64", "size": 8}]}, '
    '{"name": "globalstate", "instance_id": 0, "vmsd_name": "globalstate", "version": 1, '
    '"fields": [{"name": "size", "type": "uint32", "size": 4}, '
    '{"name": "runstate", "type": "buffer", "size": 100}]}]}'
)


def section(kind: int, ident: int, data: bytes, name: str = "", version: int = 0) -> bytes:
    """Return a section of one part, whole."""
    if kind in (wire.SECTION_START, wire.SECTION_FULL):
        head = wire.begin(kind, ident, name, version)
    else:
        head = wire.proceed(kind, ident)
    return head + data + wire.footer(ident)


def devices(clock: int, doing: str) -> bytes:
    """Return what is sent once the machine stands still: its clock in ns, and what it did."""
    return section(wire.SECTION_FULL, TIMER, wire.timer(clock), "timer", 2) + section(
        wire.SECTION_FULL, GLOBAL_STATE, wire.global_state(doing), "globalstate", 1
    )


def snapshot(machine: str, clock: int, doing: str) -> bytes:
    """Return a whole stream of a machine that stood still all the while."""
    return (
        wire.header(machine)
        + section(wire.SECTION_START, RAM, wire.ram(first=True), "ram", 4)
        + section(wire.SECTION_END, RAM, wire.ram())
        + devices(clock, doing)
        + bytes([wire.EOF])
        + wire.description(DESCRIPTION)
    )


def bare(clock: int, doing: str) -> bytes:
    """Return what a machine was doing, without its name and its memory."""
    return wire.magic() + devices(clock, doing) + bytes([wire.EOF])
