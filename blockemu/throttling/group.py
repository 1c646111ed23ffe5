"""Throttle groups: members that share limits, and take turns where they must wait.

After block/throttle-groups.c.  Reads and writes wait apart.  In a group, one timer at most is set
for each of the two; the member that it is set for is the token, from which the turns go round.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from blockemu.clocks import Cancel, Clock
from blockemu.errors import QmpError
from blockemu.objects.qom import Property
from blockemu.objects.user_object import UserObject
from blockemu.qmp_server.qapi import dump, members
from blockemu.schema.objects import ThrottleLimits
from blockemu.throttling.leaky_buckets import Buckets
from blockemu.throttling.limits import ThrottleConfig, ThrottleLength

if TYPE_CHECKING:
    from blockemu.objects.user_object import Known

_BOTH = (False, True)  # reads, writes


class NegativeLimit(QmpError):
    """A limit set by its ``x-`` name."""

    template = "Property values cannot be negative"


class LimitTooLong(QmpError):
    """A burst length set by its ``x-`` name."""

    template = "{} value must be in therange [0, {}]"


class SetTooLate(QmpError):
    """Limits of a group in use change together."""

    template = "Property cannot be set after initialization"


class GroupExists(QmpError):
    """Drives' groups have names, too."""

    template = "A group with this name already exists"


def _limit(name: str) -> Property:
    def write(self: "ThrottleGroup", value: int) -> None:
        if self.running:
            raise SetTooLate
        if value < 0:
            raise NegativeLimit
        try:
            self.config = self.config.change({name: value})
        except ThrottleLength as e:
            raise LimitTooLong(f"x-{name}", (1 << 32) - 1) from e

    return Property(f"x-{name}", "int", int, lambda self: self.config.values[name], write)


def _set_limits(self: "ThrottleGroup", value: ThrottleLimits) -> None:
    config = self.config.change(dump(value))
    config.check()
    self.configure(config)


class ThrottleGroup(UserObject):
    """Limits, and the members that keep to them together."""

    TYPE = "throttle-group"
    PROPERTIES = (
        *(_limit(name) for name in members(ThrottleLimits)),
        Property(
            "limits", "ThrottleLimits", ThrottleLimits, lambda self: self.config.values, _set_limits
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.config = ThrottleConfig()
        self.running = False
        self.members: list[Member] = []  # the newest first
        self._tokens: list[Member | None] = [None, None]
        self._armed = [False, False]
        self._groups: ThrottleGroups | None = None

    def complete(self, objects: "Known") -> None:
        """Check the limits; from now on they change only together."""
        if self.name in objects.throttle_groups.by_name:
            raise GroupExists
        self.config.check()
        self.start(objects.throttle_groups)

    def deleted(self) -> None:
        """Leave the name to others."""
        self._end()

    def start(self, groups: "ThrottleGroups") -> None:
        """Become one of ``groups``."""
        self._groups = groups
        self._clock = groups.clock
        groups.by_name[self.name] = self
        self._buckets = Buckets(self.config, self._clock.now())
        self.running = True

    def configure(self, config: ThrottleConfig) -> None:
        """Change the limits, which were checked; all buckets are empty then (throttle_config)."""
        self.config = config
        if not self.running:
            return
        self._buckets = Buckets(config, self._clock.now())
        for member in self.members:
            member.changed()

    @property
    def limited(self) -> bool:
        """Whether anybody may have to wait."""
        return self._buckets.limited

    def _end(self) -> None:
        if self._groups is not None:
            del self._groups.by_name[self.name]
            self._groups = None

    # Members

    def join(self, member: "Member") -> None:
        """Take a member in (throttle_group_register_tgm)."""
        self.users += 1
        self.members.insert(0, member)
        self._tokens = [token or member for token in self._tokens]

    def leave(self, member: "Member") -> None:
        """Let a member go, for which nothing waits; a drive's group ends with the last one."""
        for way in _BOTH:
            if self._tokens[way] is member:
                after = self._after(member)
                self._tokens[way] = after if after is not member else None
        self.members.remove(member)
        self.users -= 1
        if not self.users and self.parent is None:
            self._end()

    def _after(self, member: "Member") -> "Member":
        return self.members[(self.members.index(member) + 1) % len(self.members)]

    # Turns

    def admit(self, member: "Member", way: bool, length: int) -> asyncio.Future[None] | None:
        """Count a request in; or queue it and return what it has to wait for."""
        token = self._next_token(member, way)
        if self._must_wait(token, way) or member.queues[way]:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            member.queues[way].append((waiter, length))
            return waiter
        self._buckets.take(way, length)
        self._go_on(member, way)
        return None

    def restart(self, member: "Member", way: bool) -> None:
        """Let the first of a member's requests go, or see whose turn it is."""
        if cancel := member.timers[way]:
            cancel()
            member.timers[way] = None
            self._armed[way] = False
        if member.queues[way]:
            self._release_first(member, way)
        self._go_on(member, way)

    def _release_first(self, member: "Member", way: bool) -> None:
        waiter, length = member.queues[way].popleft()
        self._buckets.take(way, length)
        if not waiter.done():
            waiter.set_result(None)

    def _go_on(self, member: "Member", way: bool) -> None:
        """Let the next ones go, or set a timer for them (schedule_next_request)."""
        while True:
            token = self._next_token(member, way)
            if not token.queues[way] or self._must_wait(token, way):
                return
            if not member.queues[way]:
                self._tokens[way] = token
                self._arm(token, way, 0)
                return
            self._tokens[way] = member
            self._release_first(member, way)

    def _next_token(self, member: "Member", way: bool) -> "Member":
        """Return whose turn it is; one that is drained goes first."""
        if member.queues[way] and member.exempt:
            return member
        start = self._tokens[way] or member
        token = self._after(start)
        while token is not start and not token.queues[way]:
            token = self._after(token)
        return token if token.queues[way] else member

    def _must_wait(self, member: "Member", way: bool) -> bool:
        """Tell whether a member's next request must wait; a timer is set then."""
        if member.exempt:
            return False
        if self._armed[way]:
            return True
        wait = self._buckets.wait(way, self._clock.now())
        if wait:
            self._tokens[way] = member
            self._arm(member, way, wait)
        return bool(wait)

    def _arm(self, member: "Member", way: bool, nanoseconds: int) -> None:
        self._armed[way] = True
        member.timers[way] = self._clock.timer(nanoseconds, lambda: self.restart(member, way))


class ThrottleGroups:
    """All groups of an emulator, by name: those of clients and those that drives made."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.by_name: dict[str, ThrottleGroup] = {}

    def get(self, name: str) -> ThrottleGroup:
        """Return a group, which is made if there is none (throttle_group_incref)."""
        if name not in self.by_name:
            group = ThrottleGroup()
            group.name = name
            group.start(self)
        return self.by_name[name]


class Member:
    """One that keeps to a group's limits: a backend or a filter.

    ``changed`` is called when the group's limits change.  While ``exempt`` is not 0, which is while
    it is drained, its requests need not wait.
    """

    def __init__(self, group: ThrottleGroup, changed: Callable[[], None]) -> None:
        self.group = group
        self.changed = changed
        self.exempt = 0
        self.queues: tuple[deque[tuple[asyncio.Future[None], int]], ...] = (deque(), deque())
        self.timers: list[Cancel | None] = [None, None]
        group.join(self)

    @property
    def limited(self) -> bool:
        """Whether its requests may have to wait."""
        return self.group.limited

    async def admit(self, length: int, *, is_write: bool) -> None:
        """Wait until a request of ``length`` bytes may pass."""
        waiter = self.group.admit(self, is_write, length)
        if waiter is not None:
            await waiter

    def begin_drain(self) -> None:
        """Let all go that wait, and nobody wait."""
        self.exempt += 1
        if self.exempt == 1:
            self.restart()

    def end_drain(self) -> None:
        """Undo one ``begin_drain``."""
        self.exempt -= 1

    def restart(self) -> None:
        """Look again whether those that wait must (throttle_group_restart_tgm)."""
        for way in _BOTH:
            self.group.restart(self, way)

    def move(self, group: ThrottleGroup) -> None:
        """Keep to another group's limits; nothing may wait."""
        self.leave()
        self.group = group
        group.join(self)
        self.changed()

    def leave(self) -> None:
        """Keep to nobody's limits; nothing may wait (throttle_group_unregister_tgm)."""
        for way in _BOTH:
            if self.timers[way]:
                self.group.restart(self, way)
        self.group.leave(self)
