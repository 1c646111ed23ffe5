"""A filter that has nothing to do is not there: what is above it takes its child's route."""

from __future__ import annotations

import pytest
from fakes import Machine

from blockemu.route import Leaf, linear

SIZE = 1 << 20


class Bytes(Leaf):
    """A leaf that nobody reads."""

    __slots__ = ()

    def read_now(self, offset: int, buf: memoryview) -> bool:
        raise NotImplementedError

    def read(self, offset: int, buf: memoryview) -> None:
        raise NotImplementedError

    def write_now(self, offset: int, buf: memoryview) -> None:
        raise NotImplementedError


FILTERS = {  # name: options, whether reads pass it, whether writes do
    "throttle": ({"throttle-group": "g"}, True, True),
    "blkdebug": ({}, True, True),
    "blkdebug with rules": ({"inject-error": [{"event": "read_aio"}]}, False, False),
    "copy-on-read": ({}, False, True),
    "copy-before-write": ({"target": "t"}, True, False),
    "preallocate": ({}, True, True),
    "blklogwrites": ({"log": "t"}, False, False),
}


@pytest.mark.parametrize("name", FILTERS)
async def test_requests_pass_an_idle_filter(name: str) -> None:
    options, reads, writes = FILTERS[name]
    async with Machine() as machine:
        disk, _ = machine.disk("s", SIZE), machine.disk("t", SIZE)
        below = linear(Bytes())
        disk.route = lambda: below  # type: ignore[method-assign]
        await machine("object-add", qom_type="throttle-group", id="g")
        driver = name.split()[0]
        child = {"image" if driver == "blkdebug" else "file": "s"}
        await machine("blockdev-add", driver=driver, node_name="f", **child, **options)
        assert machine.news() == ["reply", "reply"]
        guest = machine.guest("f")
        assert (guest.route.read is below.read) is reads
        assert (guest.route.write is below.write) is writes
        await machine.emu.graph.remove(guest)


async def test_a_limit_makes_a_filter_see_what_passes() -> None:
    async with Machine() as machine:
        disk = machine.disk("s", SIZE)
        below = linear(Bytes())
        disk.route = lambda: below  # type: ignore[method-assign]
        await machine("object-add", qom_type="throttle-group", id="g")
        await machine(
            "blockdev-add", driver="throttle", node_name="f", file="s", throttle_group="g"
        )
        guest = machine.guest("f")
        assert guest.route.read is below.read
        for limit in (1000, 0):
            await machine(
                "qom-set", path="/objects/g", property="limits", value={"iops-total": limit}
            )
            assert (guest.route.read is below.read) is not bool(limit)
        await machine.emu.graph.remove(guest)


async def test_what_a_child_has_lost_reads_as_zeroes_and_is_not_written_to() -> None:
    async with Machine() as machine:
        disk = machine.disk("s", SIZE)
        disk.data[:] = b"x" * SIZE
        await machine("blockdev-add", driver="blkdebug", node_name="f", image="s")
        guest = machine.guest("f")
        del disk.data[SIZE // 2 :]
        disk.changed()
        buf = bytearray(SIZE)
        await guest.pread(0, buf)
        assert buf == b"x" * (SIZE // 2) + bytes(SIZE // 2)
        with pytest.raises(OSError, match="Input/output error"):
            await guest.pwrite(SIZE // 2 - 512, bytes(1024))
        assert len(disk.data) == SIZE // 2
        await machine.emu.graph.remove(guest)
