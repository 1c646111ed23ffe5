"""``blockemu.testing`` and the pytest plugin, used as their users do."""

from pathlib import Path

import pytest
from qemu.qmp import ExecuteError

from blockemu.clocks import SteppedClock
from blockemu.testing import running, spawned

pytest_plugins = ["pytester"]

MIB = 1 << 20


async def test_a_guest_reads_what_it_wrote(blockemu, tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(MIB))
    await blockemu.execute("blockdev-add", driver="file", node_name="n", filename=str(image))
    await blockemu.write("n", 4095, b"hello")
    assert await blockemu.read("n", 4094, 7) == b"\0hello\0"
    assert image.read_bytes()[4095:4100] == b"hello"
    await blockemu.execute("blockdev-del", node_name="n")


async def test_an_error_reply_is_an_exception(blockemu):
    with pytest.raises(ExecuteError, match="Failed to find node with node-name='x'"):
        await blockemu.execute("blockdev-del", node_name="x")


async def test_events_are_kept_until_they_are_waited_for(blockemu):
    await blockemu.execute("stop")
    await blockemu.execute("cont")
    assert (await blockemu.event("RESUME"))["event"] == "RESUME"
    assert (await blockemu.event("STOP"))["event"] == "STOP"


async def test_virtual_time_stands_still_until_stepped(blockemu):
    rung = []
    blockemu.clocks.virtual.timer(1000, lambda: rung.append(True))
    blockemu.step(999)
    assert not rung
    blockemu.step(1)
    assert rung


async def test_real_time_can_be_stepped_too():
    async with running(stepped=True) as emu:
        assert isinstance(emu.clocks.realtime, SteppedClock)
        emu.step(7)
        assert emu.clocks.realtime.now() == emu.clocks.virtual.now() == 7


async def test_a_profile_is_that_of_the_interface():
    async with running(profile="4.2") as emu:
        version = await emu.execute("query-version")
    assert version["qemu"] == {"major": 4, "minor": 2, "micro": 0}


async def test_a_guest_of_the_real_program_reads_what_it_wrote(tmp_path):
    (tmp_path / "disk.img").write_bytes(bytes(MIB))
    option = "file,node-name=n,filename=disk.img"
    async with spawned("--blockdev", option, folder=tmp_path) as emu:
        await emu.write("n", 4096, bytes(range(256)))
        assert await emu.read("n", 4095, 258) == bytes([0, *range(256), 0])
        with pytest.raises(OSError, match="Cannot find device"):
            await emu.read("m", 0, 1)
        assert await emu.finish() == 0


LEAKY = """
import asyncio, os

async def test_nothing(blockemu):
    await blockemu.execute("query-version")

async def test_node(blockemu):
    await blockemu.execute("blockdev-add", driver="null-co", node_name="left", size=512)

async def test_file(blockemu):
    os.open(os.devnull, os.O_RDONLY)

async def test_task(blockemu):
    task = asyncio.create_task(asyncio.Event().wait(), name="left")
    blockemu.kept = task

async def test_backend(blockemu):
    from blockemu.backend import Backend
    blockemu.emulator.graph.backends["left"] = Backend("left")
"""


def test_the_fixture_fails_a_test_that_leaves_something_behind(pytester):
    pytester.makepyfile(LEAKY)
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function")
    result = pytester.runpytest_subprocess("-q")
    result.assert_outcomes(passed=5, errors=4)
    for left in ["node left", "file descriptor *: /dev/null", "task left", "backend left"]:
        result.stdout.fnmatch_lines([f"  {left}"])


async def test_where_a_daemon_would_end_the_test_process_lives_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    children = {}
    for name, byte in (("raw", b"\1"), ("test", b"\2")):
        (tmp_path / name).write_bytes(byte * 4096)
        children[name] = {"driver": "file", "filename": str(tmp_path / name)}
    async with running() as emu:
        await emu.execute("blockdev-add", driver="blkverify", node_name="v", **children)
        with pytest.raises(ExecuteError, match="a daemon would have ended here"):
            await emu.execute("human-monitor-command", command_line='qemu-io v "read 0 512"')
        assert len(await emu.execute("query-named-block-nodes", flat=True)) == 3
    assert "contents mismatch at offset 0" in capsys.readouterr().err
