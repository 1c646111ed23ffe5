"""Crashes on demand: what is left of images when the power goes."""

from blockemu.commands.context import Context
from blockemu.crash_points import CannotCrash, CrashPoints, Point
from blockemu.emulator import Emulator
from blockemu.errors import InvalidParameterValue
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import NO_QEMU, U64
from blockemu.schema.crashes import XEmuCrashEvent, XEmuCrashPoint, XEmuCrashSurvivors

_OF_FILES = (XEmuCrashEvent.WRITE, XEmuCrashEvent.FLUSH, XEmuCrashEvent.BITMAP_WRITE)


@command(name="x-emu-crash-record", since=NO_QEMU, features=("unstable",))
async def x_emu_crash_record(context: Context) -> None:
    """Remember from now on what is written to files and not flushed, so that it can be lost."""
    await context.emu.record_changes()


@command(name="x-emu-crash", since=NO_QEMU, features=("unstable",))
async def x_emu_crash(
    context: Context,
    *,
    at: XEmuCrashPoint | None = None,
    survivors: XEmuCrashSurvivors = XEmuCrashSurvivors.ALL,
    seed: U64 = 0,
) -> None:
    """End the program as a power cut would, now or at some point; its exit status is 137 then.

    What was written before x-emu-crash-record, or this if that was not before, survives.

    @at: when; now if absent, and then there is no reply
    @survivors: what survives of the changes since each file's last flush
    @seed: what chance goes by
    """
    emu = context.emu
    if emu.die is None:
        raise CannotCrash
    if at is not None and not at.count:
        raise InvalidParameterValue("count", "a number from 1 on")
    if at is not None and at.node_name is not None and at.event not in _OF_FILES:
        raise InvalidParameterValue("node-name", "an event of a file")
    points = await emu.record_changes()
    points.arm(_point(emu, points, at), survivors.value, seed)


def _point(emu: Emulator, points: CrashPoints, at: XEmuCrashPoint | None) -> Point | None:
    if at is None:
        return None
    node = emu.graph.lookup(at.node_name) if at.node_name is not None else None
    return Point(at.event.value, at.count, points.file_of(node) if node is not None else None)
