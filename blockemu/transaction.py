"""Doing several things at once or not at all: change now, commit or undo later."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

Step = Callable[[], None]


class Transaction:
    """A list of what to do when all went well, and of how to take back what was done.

    Undoing and committing run in reverse order of registration and in order of registration,
    respectively; neither may fail.  As a context manager it commits at the end of the block and
    aborts when the block raises.  After util/transactions.c.
    """

    def __init__(self) -> None:
        self._commit: list[Step] = []
        self._abort: list[Step] = []
        self._clean: list[Step] = []
        self.touched: set[object] = set()  # what was changed so far, for whom that tells

    def on_commit(self, step: Step) -> None:
        """Run ``step`` if all goes well."""
        self._commit.append(step)

    def on_abort(self, step: Step) -> None:
        """Run ``step`` to undo what was just done."""
        self._abort.append(step)

    def on_clean(self, step: Step) -> None:
        """Run ``step`` at the end in either case."""
        self._clean.append(step)

    def commit(self) -> None:
        """Make the changes final."""
        self._finish(self._commit)

    def abort(self) -> None:
        """Undo the changes, the last one first."""
        self._finish(self._abort[::-1])

    def _finish(self, steps: list[Step]) -> None:
        clean = self._clean
        self._commit, self._abort, self._clean = [], [], []
        for step in (*steps, *clean):
            step()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.commit()
        else:
            self.abort()
