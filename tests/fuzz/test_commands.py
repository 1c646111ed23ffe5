"""Commands drawn at random are answered as the real programs answer them, word for word."""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import Blockemu, BlockemuMachine, Daemon, Machine, StorageDaemon
from compat.drawn_commands import Dealer, open_disks
from compat.drawn_monitor_lines import draw
from compat.drawn_play import compare
from hypothesis import settings

EACH = 40  # commands
SEEDS = range(max(10, settings.default.max_examples // 20))


@functools.cache
def schema() -> list[Any]:
    with tempfile.TemporaryDirectory() as folder, StorageDaemon(Path(folder)) as daemon:
        return daemon("query-qmp-schema")


@pytest.mark.parametrize("wild", [1.0, 0.3])
@pytest.mark.parametrize("seed", SEEDS)
def test_both_daemons_answer_alike(
    seed: int, wild: float, program: Callable[[str], str], tmp_path: Path
) -> None:
    for name in ("qemu-img", StorageDaemon.kind):
        program(name)
    dealer = Dealer(schema(), seed, wild)
    commands = [dealer.draw() for _ in range(EACH)]
    compare(StorageDaemon, Blockemu, commands, tmp_path, open_disks)


def plug_disks(daemon: Daemon) -> None:
    """Open disks, and plug in devices for some of them."""
    open_disks(daemon)
    daemon("device_add", driver="virtio-scsi-pci", id="vs")
    daemon("device_add", driver="scsi-hd", id="hd", drive="raw", bus="vs.0")
    daemon("device_add", driver="scsi-cd", id="cd", bus="vs.0")
    daemon("device_add", driver="virtio-blk-pci", id="vb", drive="over")
    line = "drive_add 0 if=none,id=dr,file=a.raw,format=raw"
    daemon("human-monitor-command", {"command-line": line})


@pytest.mark.parametrize("seed", SEEDS)
def test_both_human_monitors_answer_alike(
    seed: int, program: Callable[[str], str], tmp_path: Path
) -> None:
    for name in ("qemu-img", Machine.kind):
        program(name)
    dice = random.Random(seed)
    lines = [("human-monitor-command", {"command-line": draw(dice)}) for _ in range(EACH)]
    compare(Machine, BlockemuMachine, lines, tmp_path, plug_disks)
