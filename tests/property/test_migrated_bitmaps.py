"""Dirty bitmaps arrive as they left: every bit, their granularity, and whether they record."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from blockemu.migration.bitmap_wire import END
from blockemu.migration.bitmaps import ComingBitmaps, LeavingBitmaps
from blockemu.migration.wire import Input
from blockemu.testing import running

BITMAP = st.fixed_dictionaries(
    {
        "granularity": st.integers(9, 20).map(lambda shift: 1 << shift),
        "disabled": st.booleans(),
        "marks": st.lists(st.tuples(st.integers(0, 8191), st.integers(1, 4096)), max_size=6),
    }
)
SECTORS = st.integers(1, 8192)


def taken(source: ComingBitmaps, data: bytes, size: int) -> int:
    """Let a section be read in pieces; return the result."""
    stream = Input()
    loading, at = source.load(stream, 1), 0
    while True:
        try:
            next(loading)
        except StopIteration as e:
            return e.value
        stream.feed(data[at : at + size])
        at += size


def state(emu, names):
    found = {each.name: each for each in emu.emulator.graph.find("n").bitmap_set or ()}
    return [
        (name, found[name].bits.sha256(), found[name].granularity, found[name].recording)
        for name in names
    ]


async def move(sectors: int, bitmaps: list, most: int, size: int) -> None:
    async with running() as one, running() as other:
        for emu in (one, other):
            await emu.execute(
                "blockdev-add",
                driver="null-co",
                node_name="n",
                size=sectors * 512,
                read_zeroes=True,
            )
        names = [f"b{i}" for i in range(len(bitmaps))]
        node = one.emulator.graph.find("n")
        for name, wanted in zip(names, bitmaps, strict=True):
            await one.execute(
                "block-dirty-bitmap-add",
                node="n",
                name=name,
                granularity=wanted["granularity"],
                disabled=wanted["disabled"],
            )
            bits = node.bitmap_set.find(name).bits
            for first, count in wanted["marks"]:
                start = min(first, sectors - 1) * 512
                bits.mark(start, min(count * 512, sectors * 512 - start))
        said: list[str] = []
        leaving = LeavingBitmaps(one.emulator.graph, None)
        leaving.collect()
        coming = ComingBitmaps(other.emulator.graph, lambda: None, said.append)
        assert taken(coming, leaving.starts() + bytes([END]), size) == 0
        data = b"".join(leaving.bits(most)) + leaving.completes() + bytes([END])
        assert taken(coming, data, size) == 0
        await leaving.let_go()
        coming.before_start()
        assert said == []
        assert state(one, names) == state(other, names)
        for emu in (one, other):
            for name in names:
                await emu.execute("block-dirty-bitmap-remove", node="n", name=name)


@settings(max_examples=40, deadline=None)
@given(SECTORS, st.lists(BITMAP, min_size=1, max_size=4), st.integers(1, 64), st.integers(1, 5000))
def test_bitmaps_arrive_as_they_left(sectors, bitmaps, most, size):
    asyncio.run(move(sectors, bitmaps, most, size))
