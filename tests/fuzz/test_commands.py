"""Commands drawn at random are answered as the real daemon answers them, word for word."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import DEADLINE, Blockemu, Daemon, Died, StorageDaemon
from compat.drawn_commands import Dealer, Said, open_disks, prepare, said
from compat.transcript import told
from hypothesis import settings

EACH = 40  # commands
SEEDS = range(max(10, settings.default.max_examples // 20))
BUSY = {"created", "running", "waiting", "aborting"}  # what a job is in for a moment only
Commands = list[tuple[str, Any]]


@functools.cache
def schema() -> list[Any]:
    with tempfile.TemporaryDirectory() as folder, StorageDaemon(Path(folder)) as daemon:
        return daemon("query-qmp-schema")


def settle(daemon: Daemon, asked: str) -> None:
    """Wait, off the record, until all jobs stand still; who was asked to end is not ready."""
    daemon.recording = False
    deadline = time.monotonic() + DEADLINE
    while any(
        job["status"] in BUSY or (job["id"] == asked and job["status"] == "ready")
        for job in daemon("query-jobs")
    ):
        assert time.monotonic() < deadline
    daemon.recording = True


def ending(command: str, arguments: Any, answer: Any) -> str:
    """Return the job that a command has asked to end."""
    asks = command.endswith(("-complete", "-cancel")) and "return" in answer
    return str(arguments.get("id", arguments.get("device"))) if asks else ""


def play(kind: type[Daemon], commands: Commands, folder: Path) -> list[Said]:
    """Return what a fresh daemon says to each command; if it dies, to those before that."""
    folder.mkdir()
    prepare(folder)
    played: list[Said] = []
    with kind(folder) as daemon:
        open_disks(daemon)
        for command, arguments in commands:
            daemon.transcript.clear()
            try:
                answer = daemon.execute(command, arguments)
                settle(daemon, ending(command, arguments, answer))
            except Died:
                break
            played.append(said(daemon.transcript))
    return played


@pytest.mark.parametrize("wild", [1.0, 0.3])
@pytest.mark.parametrize("seed", SEEDS)
def test_both_answer_alike(
    seed: int, wild: float, program: Callable[[str], str], tmp_path: Path
) -> None:
    for name in ("qemu-img", StorageDaemon.kind):
        program(name)
    dealer = Dealer(schema(), seed, wild)
    commands = [dealer.draw() for _ in range(EACH)]
    for attempt in range(EACH):
        real = play(StorageDaemon, commands, tmp_path / f"real{attempt}")
        if len(real) == len(commands):
            break
        del commands[len(real)]  # it kills the real one: tests/compat/test_where_qemu_dies.py
    assert len(real) > EACH // 2, "too little is left to compare"
    ours = play(Blockemu, commands, tmp_path / "ours")
    for number, (mine, theirs) in enumerate(zip(ours, real, strict=False)):
        before = "\n".join(f"{name} {arguments}" for name, arguments in commands[: number + 1])
        assert mine == theirs, f"{before}\n{told(mine[0], theirs[0])}\n{mine[1]}\n{theirs[1]}"
    assert len(ours) == len(real), f"died of {commands[len(ours)]}"
