"""Playing what was drawn: the same commands on a real program and on ours, each from a fresh start."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compat.daemon import DEADLINE, Daemon, Died
from compat.drawn_commands import Said, prepare, said
from compat.transcript import told

BUSY = {"created", "running", "waiting", "aborting"}  # what a job is in for a moment only
Commands = list[tuple[str, Any]]
Open = Callable[[Daemon], None]


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


def play(kind: type[Daemon], commands: Commands, folder: Path, open_disks: Open) -> list[Said]:
    """Return what a fresh program says to each command; if it dies, to those before that."""
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


def compare(
    oracle: type[Daemon], ours: type[Daemon], commands: Commands, folder: Path, open_disks: Open
) -> None:
    """Fail unless both say the same; what kills the real one is left out."""
    most = len(commands)
    for attempt in range(most):
        real = play(oracle, commands, folder / f"real{attempt}", open_disks)
        if len(real) == len(commands):
            break
        del commands[len(real)]  # tests/compat/test_where_qemu_dies.py
    assert len(real) > most // 2, "too little is left to compare"
    own = play(ours, commands, folder / "ours", open_disks)
    for number, (mine, theirs) in enumerate(zip(own, real, strict=False)):
        before = "\n".join(f"{name} {arguments}" for name, arguments in commands[: number + 1])
        assert mine == theirs, f"{before}\n{told(mine[0], theirs[0])}\n{mine[1]}\n{theirs[1]}"
    assert len(own) == len(real), f"died of {commands[len(own)]}"
