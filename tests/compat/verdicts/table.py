"""The table of verdicts: what it is made of and how one group is played.

A group is a text, one case a line, in the order in which a fresh daemon gets them::

    + blockdev-add {"driver": "null-co", "node-name": "n"}      the real daemon must accept
    - blockdev-add {"driver": "null-co", "node-name": "n"}      it must refuse
    . wait j paused                                             await a job's status
    . forget                                                    earlier events, before a wait
    . write n 0 65536 1                                         a guest writes a pattern
    . io n read 0 512                                           a guest tries something

``+@`` and ``-@`` send a file descriptor along.  The marks say what the author meant; that the
real daemon answers so, and that ours answers the same in the same words, is what the test tests.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compat import transcript
from compat.daemon import Daemon, Died, StorageDaemon

_TIMES = re.compile(r"ops; .*")  # how long a request took is nobody's contract


@dataclass(frozen=True)
class Case:
    """One command, and whether the real daemon takes it."""

    good: bool
    command: str
    arguments: Any
    with_fd: bool = False

    def __str__(self) -> str:
        shown = "" if self.arguments is None else f" {json.dumps(self.arguments)}"
        return f"{self.command}{shown}"


@dataclass(frozen=True)
class Group:
    """Cases for one fresh daemon in a folder of its own, and the files they need."""

    name: str
    text: str
    files: Callable[[Path], object] | None = None
    oracle: type[Daemon] = StorageDaemon
    options: tuple[str, ...] = ()
    untouched: bool = False  # no byte of any file may change
    steps: list[Case | list[str]] = field(init=False)

    def __post_init__(self) -> None:
        rows = (line.strip() for line in self.text.splitlines())
        steps = [_parse(row) for row in rows if row and not row.startswith("#")]
        object.__setattr__(self, "steps", steps)

    @property
    def cases(self) -> list[Case]:
        """The steps that are commands."""
        return [step for step in self.steps if isinstance(step, Case)]


@dataclass
class Played:
    """What one daemon answered to one group, case by case, and what became of the files."""

    replies: list[Any]
    events: dict[str, list[str]]
    files: dict[str, bytes]
    printed: str = ""
    died: str = ""


def _parse(row: str) -> Case | list[str]:
    mark, _, rest = row.partition(" ")
    if mark == ".":
        return rest.split()
    assert mark in ("+", "-", "+@", "-@"), row
    command, _, arguments = rest.strip().partition(" ")
    return Case(
        good=mark[0] == "+",
        command=command,
        arguments=json.loads(arguments) if arguments.strip() else None,
        with_fd=mark.endswith("@"),
    )


def play(group: Group, kind: type[Daemon], folder: Path) -> Played:
    """Send all of *group* to a daemon started in *folder*."""
    folder.mkdir(parents=True)
    if group.files is not None:
        group.files(folder)
    replies: list[Any] = []
    died = printed = ""
    events: dict[str, list[str]] = {}
    try:
        with kind(folder, *group.options) as daemon:
            for step in group.steps:
                if isinstance(step, Case):
                    replies.append(_send(daemon, step))
                else:
                    _act(daemon, *step)
            events = transcript.events_by_job(daemon.transcript)
            assert daemon.stop() == 0, f"{kind.kind} ended badly: {daemon.errors()}"
            printed = _TIMES.sub("ops; …", daemon.printed())
    except (Died, AssertionError, OSError) as error:
        died = str(error) or type(error).__name__
    return Played(replies, events, _contents(folder), printed, died)


def _send(daemon: Daemon, case: Case) -> Any:
    if not case.with_fd:
        answer = daemon.execute(case.command, case.arguments)
    else:
        number = os.open(daemon.folder, os.O_RDONLY)
        try:
            answer = daemon.execute(case.command, case.arguments, [number])
        finally:
            os.close(number)
    return transcript.stable(daemon.normalise(answer))


def _act(daemon: Daemon, what: str, *words: str) -> None:
    if what == "wait":
        daemon.job_until(*words)
    elif what == "forget":
        daemon.events.clear()
    elif what == "write":
        node, *numbers = words
        daemon.write(node, *(int(number) for number in numbers))
    elif what == "io":
        daemon.guest(words[0], " ".join(words[1:]))
    else:
        raise ValueError(what)


def _contents(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.name: path.read_bytes() for path in paths if path.suffix != ".log"}
