"""``snapshot``: internal snapshots of an image."""

import os
import time
from typing import Any

from blockemu import snapshots
from blockemu.errors import QmpError
from blockemu.image_info import snapshots_text
from blockemu.images.qcow2.snapshots import Snapshot
from blockemu.node import Node
from blockemu.programs.img.arguments import IMAGE, Syntax
from blockemu.programs.img.program import Mode, Program
from blockemu.programs.img.refusals import Failed, Misused, OneImageExpected, Refusal

SYNTAX = Syntax("la:c:d:hqU", IMAGE | {"force-share": "U"})
ACTIONS = "lacd"
LONGEST = 255  # bytes of a name; the rest is cut off
NSEC = 1_000_000_000


class OneAction(Misused):
    """They exclude each other."""

    template = "Cannot mix '-l', '-a', '-c', '-d'"


class NotCreated(Refusal):
    """(name, negative errno, why)."""

    template = "Could not create snapshot '{}': {} ({})"


class NotFound(Refusal):
    """(name)."""

    template = "Could not delete snapshot '{}': snapshot not found"


async def run(program: Program, argv: list[str]) -> int:
    """List, take, apply or delete."""
    flags = set()
    names = []
    action, wanted = "", ""
    for name, value in program.options(SYNTAX, argv):
        if not name:
            names.append(value)
        elif name not in ACTIONS:
            flags.add(name)
        elif action:
            raise OneAction
        else:
            action, wanted = name, value
    if len(names) != 1:
        raise OneImageExpected
    mode = Mode(write=action != "l", force_share="U" in flags)
    image = await program.open(names[0], None, mode, image_opts="image-opts" in flags)
    match action:
        case "l":
            _list(program, image.node)
        case "c":
            await _create(image.node, wanted)
        case "a":
            await _apply(image.node, wanted)
        case "d":
            await _delete(image.node, wanted)
    return 0


def _list(program: Program, node: Node[Any]) -> None:
    try:
        found = snapshots.listed(node)
    except OSError:
        return
    if found:
        program.print(snapshots_text(map(snapshots.info, found)))


async def _create(node: Node[Any], name: str) -> None:
    now = time.time_ns() // 1000 * 1000
    wanted = Snapshot(
        id="",
        name=os.fsencode(name)[:LONGEST].decode(errors="surrogateescape"),
        l1_table_offset=0,
        l1_size=0,
        disk_size=0,
        vm_state_size=0,
        date_sec=now // NSEC,
        date_nsec=now % NSEC,
        icount=0,
        vm_clock_nsec=0,
    )
    try:
        await snapshots.create(node, wanted)
    except OSError as e:
        code = e.errno or 0
        raise NotCreated(name, -code, os.strerror(code)) from e


async def _apply(node: Node[Any], name: str) -> None:
    try:
        await snapshots.goto(node, name)
    except QmpError as e:
        raise Failed(f"Could not apply snapshot '{name}'", e, hint=e.hint) from e


async def _delete(node: Node[Any], name: str) -> None:
    try:
        found = snapshots.listed(node)
    except OSError:
        found = []
    # By name only (bdrv_snapshot_find).
    which = next((each for each in found if each.name == name), None)
    if which is None:
        raise NotFound(name)
    try:
        await snapshots.delete(node, which.id, which.name)
    except QmpError as e:
        raise Failed(f"Could not delete snapshot '{name}'", e, hint=e.hint) from e
