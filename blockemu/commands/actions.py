"""The steps of a transaction: all are carried out, or none.

Commands that can be part of a transaction are made of one action each, so that alone or with
others they are the same.  After qmp_transaction and BlkActionOps, blockdev.c.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from blockemu.backend import drain, guests_held
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.jobs.group import Group
from blockemu.schema.transactions import ActionCompletionMode


class NoSuchProperty(QmpError):
    """The action has no job that could wait for others."""

    template = "Action '{}' does not support Transaction property completion-mode = {}"


class Action:
    """One step.  Only ``prepare`` may fail; then it is aborted, as are those before it.

    ``stack`` is for what must hold until all is over, such as a drained section.
    """

    kind: str
    takes_time = False  # whether it begins a job, which may end together with others

    def __init__(self, emu: Emulator) -> None:
        self.emu = emu
        self.graph = emu.graph
        self.group: Group | None = None  # for the job; None: for itself
        self.stack = AsyncExitStack()

    async def prepare(self) -> None:
        """Check everything and do what can be undone."""
        raise NotImplementedError

    async def commit(self) -> None:
        """Make it final."""

    async def abort(self) -> None:
        """Undo it, as far as it was done."""

    async def clean(self) -> None:
        """Let go of what was held."""
        await self.stack.aclose()


async def run(
    emu: Emulator,
    actions: Sequence[Action],
    mode: ActionCompletionMode = ActionCompletionMode.INDIVIDUAL,
) -> None:
    """Carry out all actions as at one moment: no guest's request comes between them.

    Raises:
        QmpError: what the first ``prepare`` that failed raised; nothing is changed.

    """
    group = Group() if mode is ActionCompletionMode.GROUPED else None
    begun: list[Action] = []
    await drain(emu.graph.nodes.values())
    async with guests_held(emu.graph.nodes.values()):
        try:
            for action in actions:
                begun.append(action)
                action.group = group
                if group is not None and not action.takes_time:
                    raise NoSuchProperty(action.kind, mode.value)
                await action.prepare()
                _reached(emu, "prepare")
        except BaseException:
            for action in reversed(begun):
                await action.abort()
            raise
        else:
            for action in begun:
                await action.commit()
                _reached(emu, "commit")
        finally:
            for action in begun:
                await action.clean()


def _reached(emu: Emulator, event: str) -> None:
    """Crash here if somebody wants to see what that leaves."""
    if emu.crash_points is not None:
        emu.crash_points.reached(event)
