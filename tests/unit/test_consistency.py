"""The self-check: quiet over a sound graph, and each kind of fault is told."""

from __future__ import annotations

import pytest
from fakes import Machine

from blockemu.consistency import faults
from blockemu.dirty import bitmaps_of
from blockemu.perm import Perm


def found(machine: Machine) -> list[str]:
    return faults(machine.emu.graph, machine.emu.jobs)


def orphan(machine: Machine) -> None:
    """A node that lost sight of one that stands on it."""
    node = machine.emu.graph.find("t")
    node.parents.remove(next(edge for edge in node.parents if edge.parent is not None))


def greedy(machine: Machine) -> None:
    """A user that takes what another does not share."""
    for edge in machine.emu.graph.find("t").parents:
        edge.shared = Perm.NONE


def half_drained(machine: Machine) -> None:
    machine.emu.graph.find("s").quiesce_counter += 1


def miscounted(machine: Machine) -> None:
    bitmap = bitmaps_of(machine.emu.graph.find("s")).find("b")
    assert bitmap is not None
    bitmap.bits.count += 1


def renamed(machine: Machine) -> None:
    graph = machine.emu.graph
    graph.nodes["other"] = graph.nodes.pop("t")


def let_go(machine: Machine) -> None:
    machine.emu.graph.find("t").holds -= 1


def resumed(machine: Machine) -> None:
    machine.job().pause_count = -1


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (orphan, "does not know"),
        (greedy, "does not share"),
        (half_drained, "drained sections"),
        (miscounted, "counts 1 bits, and has 0"),
        (renamed, "another name"),
        (let_go, "too often"),
        (resumed, "more often than paused"),
    ],
)
async def test_a_fault_is_found(harm, words) -> None:
    machine = Machine()
    machine.disk("s")
    machine.disk("t")
    machine.guest("s")
    await machine("block-dirty-bitmap-add", node="s", name="b")
    arguments = {"job_id": "j", "device": "s", "target": "t", "sync": "none"}
    await machine("blockdev-backup", **arguments)
    assert found(machine) == []
    harm(machine)
    assert any(words in fault for fault in found(machine)), found(machine)
