"""Rules and states: what an event does, and which requests fail after it.

An event goes through the rules that name it, newest first.  Those of the current state act:

==============  ===================================================================
rule            what it does
==============  ===================================================================
inject-error    becomes active, in place of what was active before this event
set-state       sets the state that holds after the event; the oldest rule wins
breakpoint      suspends the request that the event belongs to, and is used up
==============  ===================================================================

A request fails by the oldest active rule that fits it; one with errno 0 lets it through.
"""

import asyncio
import errno
from collections.abc import Callable
from typing import Final

from blockemu.os_errors import os_error
from blockemu.records import record

SECTOR: Final = 512
ANYWHERE: Final = -1
DEFAULT_IOTYPES: Final = frozenset({"read", "write", "write-zeroes", "discard", "flush"})


@record(eq=False)
class InjectError:
    """Requests fail with ``code`` once the event has come; ``sector`` -1 means any."""

    event: str
    state: int = 0
    iotypes: frozenset[str] = DEFAULT_IOTYPES
    code: int = errno.EIO
    sector: int = ANYWHERE
    once: bool = False
    immediately: bool = False

    def fits(self, iotype: str, offset: int, length: int) -> bool:
        """Tell whether a request is meant."""
        at = self.sector * SECTOR
        inside = length > 0 and offset <= at < offset + length
        return iotype in self.iotypes and (self.sector == ANYWHERE or inside)


@record(eq=False)
class SetState:
    """The state is another one once the event has come."""

    event: str
    state: int = 0
    new_state: int = 0


@record(eq=False)
class Breakpoint:
    """The next request that comes by is held up."""

    event: str
    tag: str
    state: int = 0


Rule = InjectError | SetState | Breakpoint


@record(eq=False)
class Suspended:
    """A request that waits to be resumed."""

    tag: str
    resumed: "asyncio.Future[None]"


class Rules:
    """The rules of one node, oldest first, and its state."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._rules: list[Rule] = []
        self._active: list[InjectError] = []
        self._suspended: list[Suspended] = []
        self._waiters: list[asyncio.Future[None]] = []
        self.state = 1

    def __bool__(self) -> bool:
        return bool(self._rules)

    def add(self, rule: Rule) -> None:
        """Let a rule act from now on."""
        self._rules.append(rule)

    async def event(self, name: str) -> None:
        """Act on an event; come back when all requests held up by it are resumed."""
        state = self.state
        held: list[Suspended] = []
        fresh: list[InjectError] = []
        for rule in [each for each in reversed(self._rules) if each.event == name]:
            if rule.state and rule.state != self.state:
                continue
            if isinstance(rule, InjectError):
                fresh.insert(0, rule)
            elif isinstance(rule, SetState):
                state = rule.new_state
            else:
                held.append(self._suspend(rule))
        if fresh:
            self._active = fresh
        self.state = state
        for suspended in held:
            await suspended.resumed

    async def check(self, iotype: str, offset: int = 0, length: int = 0) -> None:
        """Raise OSError if a request is to fail."""
        rule = next((each for each in self._active if each.fits(iotype, offset, length)), None)
        if rule is None or not rule.code:
            return
        if rule.once:
            self._active.remove(rule)
            self._rules.remove(rule)
        if not rule.immediately:
            await asyncio.sleep(0)
        raise os_error(rule.code)

    # Breakpoints

    def _suspend(self, rule: Breakpoint) -> Suspended:
        self._rules.remove(rule)
        suspended = Suspended(rule.tag, asyncio.get_running_loop().create_future())
        self._suspended.insert(0, suspended)
        self._say(f"blkdebug: Suspended request '{rule.tag}'\n")
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        return suspended

    def is_suspended(self, tag: str) -> bool:
        """Tell whether a request is held up as ``tag``."""
        return any(each.tag == tag for each in self._suspended)

    async def wait(self, tag: str) -> None:
        """Wait until a request is held up as ``tag``."""
        while not self.is_suspended(tag):
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def resume(self, tag: str) -> bool:
        """Let the request that was held up last as ``tag`` go on; False: there is none."""
        for each in self._suspended:
            if each.tag == tag:
                self._say(f"blkdebug: Resuming request '{tag}'\n")
                self._suspended.remove(each)
                if not each.resumed.done():  # it may have been cancelled
                    each.resumed.set_result(None)
                return True
        return False

    def remove_breakpoints(self, tag: str) -> bool:
        """Forget all breakpoints for ``tag`` and let go what they hold; False: there was none."""
        mine = [r for r in self._rules if isinstance(r, Breakpoint) and r.tag == tag]
        self._rules = [rule for rule in self._rules if rule not in mine]
        found = bool(mine)
        while self.resume(tag):
            found = True
        return found
