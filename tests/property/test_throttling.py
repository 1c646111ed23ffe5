"""Rates over any history of limits, groups, drains and departures, on a clock that only we move.

A load that never ends runs on each of a few drives.  Whatever was done before, from the time that
limits are set each second sees as many requests as they allow, to within 2 %, and who shares them
shares alike.
"""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from blockemu.backend import Backend, drained
from blockemu.clocks import Clocks, SteppedClock
from blockemu.emulator import Emulator
from blockemu.perm import Perm
from blockemu.throttling.limits import ThrottleConfig

SECOND = 10**9
WINDOW = 5  # seconds that are measured
DEPTH = 4  # requests of a drive that are under way
SIZES = (512, 4096, 6000)
_SETTLING = 60  # turns of the event loop: more than a request takes to come back


class Drive:
    """A drive with a load: a new request for each that ends."""

    def __init__(self, backend: Backend, *, is_write: bool, size: int) -> None:
        self.backend = backend
        self.is_write = is_write
        self.size = size
        self.done = 0
        self.stopped = False
        self.tasks = [asyncio.create_task(self._run()) for _ in range(DEPTH)]

    async def _run(self) -> None:
        buf = bytearray(self.size)
        while not self.stopped:
            await (self.backend.pwrite(0, buf) if self.is_write else self.backend.pread(0, buf))
            self.done += 1
            await asyncio.sleep(0)


def allowed(values: dict[str, int], size: int) -> float | None:
    """Return how many requests of a size limits of one kind let pass a second; None: any number."""
    weight = max(1.0, size / values["iops-size"]) if values.get("iops-size") else 1.0
    rates = [
        value / (size if name.startswith("bps") else weight)
        for name, value in values.items()
        if name != "iops-size" and "max" not in name
    ]
    return min(rates, default=None)


@st.composite
def limits(draw: st.DrawFn) -> dict[str, int]:
    """Draw limits that bind: at least one rate, between 20 and 100 requests a second."""
    kinds = draw(st.sets(st.sampled_from(["iops-total", "bps-total"]), min_size=1))
    rate = st.integers(20, 100)
    values = {kind: draw(rate) * (4096 if kind.startswith("bps") else 1) for kind in kinds}
    if "iops-total" in kinds and draw(st.booleans()):
        values["iops-size"] = draw(st.sampled_from([512, 4096, 8192]))
    if len(kinds) == 1 and draw(st.booleans()):  # else a burst may last as long as it is let wait
        (kind,) = kinds
        values |= {f"{kind}-max": values[kind] * draw(st.integers(1, 2))}
    return values


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("limits"), limits()),
        st.tuples(st.just("drain"), st.integers(0, 2)),
        st.tuples(st.just("leave"), st.integers(0, 2)),
        st.tuples(st.just("time"), st.integers(1, 1000)),
    ),
    max_size=6,
)


async def settle() -> None:
    for _ in range(_SETTLING):
        await asyncio.sleep(0)


async def pass_time(clock: SteppedClock, nanoseconds: int) -> None:
    """Let time pass from one timer to the next, as a clock that runs would."""
    goal = clock.now() + nanoseconds
    while (deadline := clock.next_deadline) is not None and deadline <= goal:
        clock.step(max(0, deadline - clock.now()))
        for _ in range(_SETTLING):
            await asyncio.sleep(0)
            if clock.next_deadline is not None:
                break
    clock.step(goal - clock.now())
    await settle()


async def play(steps: list, last: dict[str, int], count: int, *, is_write: bool, size: int) -> None:
    clock = SteppedClock()
    emu = Emulator(clocks=Clocks(virtual=clock))
    emu.quiet = True
    group = emu.throttle_groups.get("g")

    def configure(values: dict[str, int]) -> None:
        config = ThrottleConfig().change(values)
        config.check()
        group.configure(config)

    configure({"iops-total": 100})
    drives = []
    for number in range(count):
        node = await emu.opener.open({"driver": "null-co", "node-name": f"n{number}"})
        backend = Backend(f"d{number}", Perm.WRITE)
        emu.graph.insert(backend, node)
        await backend.limit(group)
        drives.append(Drive(backend, is_write=is_write, size=size))
    await settle()
    for what, value in steps:
        if what == "time":
            await pass_time(clock, value * 1_000_000)
        elif what == "limits":
            configure(value)
        elif what == "drain":
            async with drained(drives[value % len(drives)].backend.node):
                await settle()
        elif len(drives) > 1:
            drive = drives.pop(value % len(drives))
            drive.stopped = True
            await drive.backend.limit(None)
            await asyncio.gather(*drive.tasks)
            await emu.graph.remove(drive.backend)
    configure(last)
    await pass_time(clock, 3 * SECOND)  # bursts are over, and what was begun under other limits
    before = [drive.done for drive in drives]
    await pass_time(clock, WINDOW * SECOND)
    each = [drive.done - start for drive, start in zip(drives, before, strict=True)]
    expected = allowed(last, size)
    assert expected is not None
    assert abs(sum(each) - expected * WINDOW) <= max(0.02 * expected * WINDOW, 2), (each, expected)
    assert max(each) - min(each) <= max(0.02 * max(each), DEPTH), each
    for drive in drives:
        drive.stopped = True
        await drive.backend.limit(None)
        await asyncio.gather(*drive.tasks)
        await emu.graph.remove(drive.backend)
    assert not emu.throttle_groups.by_name, "a drive's group ends with its last member"
    await emu.close()


@settings(max_examples=30, deadline=None)
@given(STEPS, limits(), st.integers(1, 3), st.booleans(), st.sampled_from(SIZES))
def test_rates_are_kept_whatever_came_before(
    steps: list, last: dict[str, int], count: int, is_write: bool, size: int
) -> None:
    asyncio.run(play(steps, last, count, is_write=is_write, size=size))
