"""Power cuts: the program's end, and what it leaves of its files."""

import random
from pathlib import Path

import pytest
from qemu.qmp import ExecuteError

from blockemu.crashes import crashes_of_all
from blockemu.images.qcow2 import new_image
from blockemu.journal import Flushed, Journal, Resized, Wrote, Zeroed
from blockemu.testing import Running, Spawned, crash_states, running, spawned

BLOCK = 4096


def disk(folder: Path, name: str = "disk", blocks: int = 4) -> Path:
    path = folder / name
    path.write_bytes(b"-" * BLOCK * blocks)
    return path


async def add(emu: Running | Spawned, path: Path, node: str = "n", driver: str = "raw") -> None:
    file = {"driver": "file", "filename": str(path), "node-name": f"{node}-file"}
    await emu.execute("blockdev-add", driver=driver, node_name=node, file=file)


async def flush(emu: Spawned, node: str = "n") -> None:
    await emu.execute("human-monitor-command", command_line=f'qemu-io {node} "flush"')


def shown(path: Path) -> str:
    """Return the first byte of each block."""
    return path.read_bytes()[::BLOCK].decode()


# The program


@pytest.mark.parametrize(
    ("survivors", "seed", "left"),
    [("all", 0, "ab-d"), ("none", 0, "a---"), ("some", 1, "ab--"), ("some", 10, "a--d")],
)
async def test_what_no_flush_has_made_durable_may_be_lost(tmp_path, survivors, seed, left):
    path = disk(tmp_path)
    async with spawned() as emu:
        await add(emu, path)
        await emu.execute("x-emu-crash-record")
        await emu.write("n", 0, b"a" * BLOCK)
        await flush(emu)
        await emu.write("n", BLOCK, b"b" * BLOCK)
        await emu.write("n", 3 * BLOCK, b"d" * BLOCK)
        assert shown(path) == "ab-d"
        await emu.crash(survivors=survivors, seed=seed)
    assert shown(path) == left


async def test_writes_are_torn_at_sectors(tmp_path):
    path = disk(tmp_path, blocks=64)
    async with spawned() as emu:
        await add(emu, path)
        await emu.execute("x-emu-crash-record")
        for i in range(64):
            await emu.write("n", i * BLOCK, b"w" * BLOCK)
        await emu.crash(survivors="torn", seed=3)
    content = path.read_bytes()
    sectors = [content[at : at + 512] for at in range(0, len(content), 512)]
    assert set(sectors) == {b"w" * 512, b"-" * 512}
    mixed = [i for i in range(64) if len(set(sectors[i * 8 : i * 8 + 8])) == 2]
    assert 20 < len(mixed) < 44


@pytest.mark.parametrize(
    ("event", "count", "left"), [("write", 2, "ab--"), ("flush", 1, "a---"), ("flush", 2, "abc-")]
)
async def test_it_crashes_at_a_write_or_a_flush_of_a_node(tmp_path, event, count, left):
    path, other = disk(tmp_path), disk(tmp_path, "other")
    async with spawned() as emu:
        await add(emu, path)
        await add(emu, other, "o")

        async def work() -> None:
            await emu.write("o", 0, b"x" * BLOCK)
            await flush(emu, "o")
            for i, letter in enumerate("abcd"):
                await emu.write("n", i * BLOCK, letter.encode() * BLOCK)
                if letter in "ac":
                    await flush(emu)

        await emu.execute("x-emu-crash", at={"event": event, "count": count, "node-name": "n"})
        await emu.crashes_in(work())
    assert shown(path) == left
    assert shown(other) == "x---"


@pytest.mark.parametrize(("event", "count"), [("prepare", 1), ("prepare", 2), ("commit", 1)])
async def test_it_crashes_between_the_actions_of_a_transaction(tmp_path, event, count):
    path = tmp_path / "disk"
    path.write_bytes(new_image(64 * BLOCK))
    names = [f"b{i}" for i in range(2)]
    async with spawned() as emu:
        await add(emu, path, driver="qcow2")
        actions = [
            {"type": "block-dirty-bitmap-add", "data": {"node": "n", "name": name}}
            for name in names
        ]
        await emu.execute("x-emu-crash", at={"event": event, "count": count})
        await emu.crashes_in(emu.execute("transaction", actions=actions))
    async with running() as emu:
        await add(emu, path, driver="qcow2")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"at": {"event": "write", "node-name": "nope"}}, "Cannot find device='nope' nor"),
        ({"at": {"event": "write", "node-name": "null"}}, "Node 'null' does not keep its data in"),
        (
            {"at": {"event": "commit", "node-name": "null"}},
            "Parameter 'node-name' expects an event",
        ),
        ({"at": {"event": "write", "count": 0}}, "Parameter 'count' expects a number from 1 on"),
        ({"survivors": "few"}, "Parameter 'survivors' does not accept value 'few'"),
    ],
)
async def test_bad_points_are_refused(arguments, text):
    async with spawned() as emu:
        await emu.execute("blockdev-add", driver="null-co", node_name="null")
        with pytest.raises(ExecuteError) as caught:
            await emu.execute("x-emu-crash", arguments)
        assert text in str(caught.value)


async def test_a_part_of_another_program_does_not_end_it():
    async with running() as emu:
        with pytest.raises(ExecuteError, match="cannot crash"):
            await emu.execute("x-emu-crash")


# All that there could have been


async def test_each_state_is_put_on_the_disk_and_in_the_end_the_last(tmp_path):
    path = disk(tmp_path)

    async def story(emu: Running) -> None:
        await add(emu, path)
        await emu.write("n", 0, b"a" * BLOCK)
        async with emu.guest("n") as guest:
            await guest.flush()
        await emu.write("n", BLOCK, b"b" * BLOCK)
        await emu.write("n", 2 * BLOCK, b"c" * BLOCK)

    found = {shown(path) async for state in crash_states(story) if state.files[str(path)]}
    whole = {left for left in found if set(left) <= set("abc-")}
    assert {"----", "a---", "ab--", "a-c-", "abc-"} <= whole
    assert all(left[0] == "a" for left in found if "b" in left or "c" in left)
    assert shown(path) == "abc-"


async def test_files_are_cut_off_at_one_moment(tmp_path):
    one, two = disk(tmp_path, "one", 1), disk(tmp_path, "two", 1)

    async def story(emu: Running) -> None:
        await add(emu, one, "one")
        await add(emu, two, "two")
        for node in ("one", "two"):
            await emu.write(node, 0, node[:1].encode() * BLOCK)
            async with emu.guest(node) as guest:
                await guest.flush()

    found = {shown(one) + shown(two) async for _ in crash_states(story)}
    assert found == {"--", "o-", "ot"}  # two was written when one was durable


def change_all(journal: Journal, path: Path) -> list:
    """Change a file in every way; return what it held after each change."""
    held = [path.read_bytes()]
    with path.open("r+b") as raw:
        file = journal.file(str(path), raw.fileno())

        def now() -> None:
            raw.flush()
            held.append(path.read_bytes())

        entry = file.write(100, memoryview(b"w" * 1000))
        raw.seek(100)
        raw.write(b"w" * 1000)
        entry.done = True
        now()
        entry = file.zero(0, 600)
        raw.seek(0)
        raw.write(bytes(600))
        entry.done = True
        now()
        for size in (300, 9000):
            entry = file.resize(size)
            raw.truncate(size)
            entry.done = True
            now()
        entry = file.write(12000, memoryview(b"e" * 10))  # beyond the end
        raw.seek(12000)
        raw.write(b"e" * 10)
        entry.done = True
        now()
        entry = file.zero(12005, 100)
        raw.truncate(12105)
        raw.seek(12005)
        raw.write(bytes(100))
        entry.done = True
        now()
    return held


def test_every_kind_of_change_can_be_taken_back_and_made_again(tmp_path):
    for kept in range(7):
        path = disk(tmp_path, f"disk{kept}", 1)
        journal = Journal()
        held = change_all(journal, path)
        assert len(journal.pending) == 6
        journal.cut(list(journal.changes())[:kept])
        assert path.read_bytes() == held[kept]
        journal.close()


def test_the_log_leads_to_the_same_contents(tmp_path):
    path = disk(tmp_path, blocks=1)
    journal = Journal(history=True)
    held = change_all(journal, path)
    states = crashes_of_all(journal.contents, journal.log, 1, random.Random(0))
    whole = {state.at: bytes(state.contents[str(path)]) for state in reversed(list(states))}
    assert [whole[at] for at in range(7)] == held
    journal.close()


def test_a_write_that_a_flush_did_not_cover_is_not_durable(tmp_path):
    path = disk(tmp_path)
    journal = Journal(history=True)
    with path.open("r+b") as raw:
        file = journal.file(str(path), raw.fileno())
        first = file.write(0, memoryview(b"a"))
        first.done = True
        late = file.write(1, memoryview(b"b"))
        succeeded = file.flushing()
        late.done = True  # but not when the flush began
        file.resize(10)
        succeeded()
    assert [change for _, change in journal.log] == [
        Wrote(0, b"a"), Flushed(), Wrote(1, b"b"), Resized(10)
    ]  # fmt: skip
    assert [entry.change for entry in journal.pending] == [Wrote(1, b"b"), Resized(10)]
    journal.close()


def test_a_file_is_the_same_by_each_of_its_names(tmp_path):
    path = disk(tmp_path)
    (tmp_path / "link").symlink_to(path)
    journal = Journal()
    with path.open("r+b") as one, (tmp_path / "link").open("r+b") as two:
        file = journal.file(str(path), one.fileno())
        assert journal.file("link", two.fileno()) is file
    file.zero(0, 10)
    assert journal.pending[0].change == Zeroed(0, 10)
    journal.close()
