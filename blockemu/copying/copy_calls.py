"""What ``block_copy`` is asked for, and the pieces that it makes of that."""

import asyncio
from collections.abc import Callable

from blockemu.eager import Routine
from blockemu.records import field, record
from blockemu.waiting import asleep, wake

WORKERS = 64  # pieces under way at most


@record(eq=False)
class Call:
    """One call of ``BlockCopy.copy``, and what became of it.

    ``ended`` is called when it is over.  One that keeps to the speed limit must be begun by
    ``BlockCopy.start``.
    """

    max_workers: int = WORKERS
    max_chunk: int = 0  # bytes; 0 for no limit
    ignore_speed: bool = False
    ended: Callable[[], None] | None = None
    cancelled: bool = False
    finished: bool = False
    error: int = 0  # errno of the first piece that failed
    error_is_read: bool = False
    routine: Routine | None = None
    waiters: "list[asyncio.Future[None]]" = field(default_factory=list)

    def cancel(self) -> None:
        """Take no more pieces; those under way go on."""
        self.cancelled = True
        self.kick()

    def kick(self) -> None:
        """End a wait that is due to the speed."""
        if self.routine is not None:
            self.routine.enter()

    def fail(self, error: int, *, is_read: bool) -> None:
        """Note the first error."""
        if not self.error:
            self.error, self.error_is_read = error, is_read

    def finish(self) -> None:
        """Be over, and tell who waits for that."""
        self.finished = True
        wake(self.waiters)
        if self.ended is not None:
            self.ended()

    async def wait(self) -> None:
        """Wait until it is over."""
        while not self.finished:
            await asleep(self.waiters)


@record(eq=False)
class Piece:
    """A range on its way."""

    start: int
    end: int
    zero: bool = False
    waiters: "list[asyncio.Future[None]]" = field(default_factory=list)


class ReadFailed(OSError):
    """The source failed, not the target."""
