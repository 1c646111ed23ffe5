"""A pytest plugin: the fixture ``blockemu`` is an emulator for a test that must leave it clean.

It needs pytest-asyncio.  What counts as left behind: nodes, jobs and named backends that the test
did not remove, asyncio tasks, and file descriptors.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

try:
    from pytest_asyncio import fixture
except ImportError:  # the fixture is then found and says so when it is used
    fixture: Any = pytest.fixture  # type: ignore[no-redef]

if TYPE_CHECKING:
    from blockemu.testing import Running


class Leaks:
    """What there was before a test, to be compared with what there is after it."""

    def __init__(self) -> None:
        self._tasks = asyncio.all_tasks()
        self._files = open_files()

    def after_close(self) -> list[str]:
        """Return the tasks and files that are new, once the emulator was closed."""
        new = asyncio.all_tasks() - self._tasks - {asyncio.current_task()}
        tasks = [task.get_name() for task in new]
        files = {fd: name for fd, name in open_files().items() if self._files.get(fd) != name}
        return [
            *(f"task {name}" for name in tasks),
            *(f"file descriptor {fd}: {name}" for fd, name in files.items()),
        ]


def open_files() -> dict[int, str]:
    """Return what this process has open: descriptor and name."""
    import os
    from pathlib import Path

    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[int(entry.name)] = os.readlink(entry)  # noqa: PTH115
        except FileNotFoundError:
            continue  # the one that lists them
    return found


def left_in(emu: "Running") -> list[str]:
    """Return what an emulator still has."""
    emulator = emu.emulator
    return [
        *(f"node {node.name}" for node in emulator.graph),
        *(f"backend {title}" for title in emulator.graph.backends),
        *(f"job {job.id}" for job in emulator.jobs),
        *(f"request {task.get_name()}" for task in emulator.tasks),
    ]


@fixture
async def blockemu() -> "AsyncIterator[Running]":
    """Give an emulator, new for each test; fail the test if it leaves something behind."""
    from blockemu.testing import running

    leaks = Leaks()
    async with running() as emu:
        yield emu
        left = left_in(emu)
    left += leaks.after_close()
    if left:
        pytest.fail("the test leaves behind:\n  " + "\n  ".join(left), pytrace=False)
