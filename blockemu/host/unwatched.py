"""Files that no journal remembers changes of, which is how they mostly are (see journal)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from blockemu.journal import JournalFile


class Unwatched:
    """In place of a journal where there is none: remembers nothing."""

    done = True

    def write(self, offset: int, buf: memoryview) -> "Unwatched":
        """Return what can be told that the write is done."""
        return self

    def zero(self, offset: int, length: int) -> "Unwatched":
        """Return what can be told that the range is zeroed."""
        return self

    def resize(self, length: int) -> "Unwatched":
        """Return what can be told that the size is set."""
        return self

    def flushing(self) -> Callable[[], None]:
        """Return what can be told that the flush succeeded."""
        return _nothing


UNWATCHED: Final = Unwatched()
Watcher: TypeAlias = "Unwatched | JournalFile"


def _nothing() -> None:
    pass
