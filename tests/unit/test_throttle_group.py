"""Members of a group share its limits to within 2 %, on a clock that only we move."""

import asyncio

import pytest

from blockemu.backend import Backend, drained
from blockemu.clocks import Clocks, SteppedClock
from blockemu.emulator import Emulator
from blockemu.perm import Perm
from blockemu.throttling.limits import ThrottleConfig

SECOND = 10**9
BLOCK = 512


@pytest.fixture
async def machine():
    emu = Emulator(clocks=Clocks(virtual=SteppedClock()))
    emu.quiet = True
    yield emu
    await emu.close()


async def drives(emu, count):
    made = []
    for number in range(count):
        node = await emu.opener.open({"driver": "null-co", "node-name": f"n{number}"})
        backend = Backend(f"d{number}", Perm.WRITE)
        emu.graph.insert(backend, node)
        emu.graph.backends[backend.title] = backend
        made.append(backend)
    return made


def configure(emu, **limits):
    values = {name.replace("_", "-"): value for name, value in limits.items()}
    config = ThrottleConfig().change(values)
    config.check()
    emu.throttle_groups.get("g").configure(config)


async def turns():
    for _ in range(20):
        await asyncio.sleep(0)


async def load(backend, count, *, is_write=False):
    """Put requests in that nobody awaits; return their tasks, once all are in."""

    def request(at):
        buf = bytearray(BLOCK)
        return backend.pwrite(at, buf) if is_write else backend.pread(at, buf)

    tasks = [asyncio.create_task(request(n * BLOCK)) for n in range(count)]
    await turns()
    return tasks


async def pass_time(emu, nanoseconds):
    emu.clocks.virtual.step(nanoseconds)
    await turns()


def done(tasks):
    return sum(task.done() for task in tasks)


async def finish(emu, *groups):
    await pass_time(emu, 10_000 * SECOND)
    for tasks in groups:
        await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    ("limits", "is_write", "each_second"),
    [
        ({"bps_total": 100 * BLOCK}, False, 100),
        ({"bps_read": 100 * BLOCK}, False, 100),
        ({"bps_write": 100 * BLOCK}, True, 100),
        ({"iops_total": 100}, True, 100),
        ({"iops_read": 100}, False, 100),
        ({"iops_write": 100}, True, 100),
        ({"iops_total": 100, "iops_size": 256}, False, 50),
        ({"iops_total": 100, "bps_total": 60 * BLOCK}, False, 60),
    ],
)
async def test_a_rate_is_kept(machine, limits, is_write, each_second):
    (drive,) = await drives(machine, 1)
    await drive.limit(machine.throttle_groups.get("g"))
    configure(machine, **limits)
    tasks = await load(drive, 2000, is_write=is_write)
    begun = done(tasks)
    await pass_time(machine, 10 * SECOND)
    assert done(tasks) - begun == pytest.approx(10 * each_second, rel=0.02)
    await finish(machine, tasks)


async def test_a_burst_is_followed_by_the_rate(machine):
    (drive,) = await drives(machine, 1)
    await drive.limit(machine.throttle_groups.get("g"))
    configure(machine, iops_total=100, iops_total_max=700, iops_total_max_length=4)
    tasks = await load(drive, 9000)
    await pass_time(machine, 4 * SECOND)
    in_burst = done(tasks)
    assert in_burst == pytest.approx(4 * 700 + 70, rel=0.02)  # a tenth of a second's worth at once
    await pass_time(machine, 20 * SECOND)
    # The bucket holds 4 * 700, of which 4 * 100 had leaked.
    assert done(tasks) - in_burst == pytest.approx(400 - 70 + 20 * 100, rel=0.02)
    before = done(tasks)
    await pass_time(machine, 10 * SECOND)
    assert done(tasks) - before == pytest.approx(1000, rel=0.02)
    await finish(machine, tasks)


async def test_members_share_alike(machine):
    made = await drives(machine, 3)
    for drive in made:
        await drive.limit(machine.throttle_groups.get("g"))
    configure(machine, iops_total=300)
    loads = [await load(drive, 2000) for drive in made]
    begun = [done(tasks) for tasks in loads]
    await pass_time(machine, 10 * SECOND)
    for tasks, before in zip(loads, begun, strict=True):
        assert done(tasks) - before == pytest.approx(1000, rel=0.02)
    await finish(machine, *loads)


async def test_new_limits_count_at_once(machine):
    (drive,) = await drives(machine, 1)
    await drive.limit(machine.throttle_groups.get("g"))
    configure(machine, iops_total=10)
    tasks = await load(drive, 3000)
    await pass_time(machine, 10 * SECOND)
    configure(machine, iops_total=100)
    drive.throttle.restart()
    await turns()
    before = done(tasks)
    await pass_time(machine, 10 * SECOND)
    assert done(tasks) - before == pytest.approx(1000, rel=0.02)
    await finish(machine, tasks)


async def test_a_drained_section_waits_for_nobody(machine):
    (drive,) = await drives(machine, 1)
    await drive.limit(machine.throttle_groups.get("g"))
    configure(machine, iops_total=1)
    tasks = await load(drive, 100)
    assert done(tasks) < 5
    async with drained(drive.node):
        assert done(tasks) == 100
    later = await load(drive, 1)
    assert not done(later)
    await finish(machine, later)


async def test_who_leaves_is_held_up_no_more(machine):
    one, other = await drives(machine, 2)
    for drive in (one, other):
        await drive.limit(machine.throttle_groups.get("g"))
    configure(machine, iops_total=10)
    mine, others = await load(one, 50), await load(other, 2000)
    await one.limit(None)
    assert done(mine) == 50
    owed = 5 * SECOND  # what went at once while the other left has to leak first
    await pass_time(machine, owed)
    before = done(others)
    await pass_time(machine, 60 * SECOND)
    assert done(others) - before == pytest.approx(10 * 60, rel=0.02)
    await finish(machine, others)
    await other.limit(None)
    assert not machine.throttle_groups.by_name


async def test_reads_and_writes_wait_apart(machine):
    (drive,) = await drives(machine, 1)
    await drive.limit(machine.throttle_groups.get("g"))
    configure(machine, iops_read=10)
    reads = await load(drive, 100)
    writes = await load(drive, 100, is_write=True)
    assert done(writes) == 100
    assert done(reads) < 5
    await finish(machine, reads)


async def test_a_filter_limits_what_goes_through_it(machine):
    group = machine.throttle_groups.get("g")
    await machine.opener.open({"driver": "null-co", "node-name": "n"})
    node = await machine.opener.open(
        {"driver": "throttle", "node-name": "t", "throttle-group": "g", "file": "n"}
    )
    backend = Backend(perm=Perm.WRITE)
    machine.graph.insert(backend, node)
    assert backend.route.read is not None  # nothing to do: it costs nothing
    configure(machine, iops_total=100)
    assert backend.route.read is None
    tasks = await load(backend, 2000)
    begun = done(tasks)
    await pass_time(machine, 10 * SECOND)
    assert done(tasks) - begun == pytest.approx(1000, rel=0.02)
    async with drained(node):
        assert done(tasks) == 2000
    await machine.graph.remove(backend)
    assert not group.members  # the filter went with its last user
