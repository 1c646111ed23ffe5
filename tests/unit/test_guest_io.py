"""A guest's requests: rerror and werror, a machine that stops, and goes on."""

import asyncio

import pytest
from qemu.qmp import ExecuteError

from blockemu.testing import Running, running

BAD = 64 << 10  # where requests fail


async def plug(
    emu: Running,
    *,
    errno: int = 5,
    once: bool = False,
    model: str = "virtio-blk",
    **properties: str,
) -> None:
    """Give the machine a disk that fails at BAD."""
    rules = [
        {"event": "none", "iotype": kind, "errno": errno, "sector": BAD // 512, "once": once}
        for kind in ("read", "write")
    ]
    rules.append({"event": "none", "iotype": "flush", "errno": errno, "once": once})
    null = {"driver": "null-co", "size": 1 << 20, "read-zeroes": True}
    await emu.execute(
        "blockdev-add", driver="blkdebug", node_name="n", image=null, inject_error=rules
    )
    named = {key.replace("_", "-"): value for key, value in properties.items()}
    await emu.execute("device_add", {"driver": model, "id": "disk", "drive": "n"} | named)


async def status(emu: Running) -> tuple[str, str | None]:
    """Return the run state and the disk's I/O status."""
    (block,) = await emu.execute("query-block")
    return (await emu.execute("query-status"))["status"], block.get("io-status")


async def stats(emu: Running) -> dict:
    (found,) = await emu.execute("query-blockstats")
    return found["stats"]


@pytest.mark.parametrize(
    ("policies", "errno", "kind", "action"),
    [
        ({}, 5, "read", "report"),
        ({}, 28, "write", "stop"),
        ({}, 5, "write", "report"),
        ({"rerror": "stop"}, 5, "read", "stop"),
        ({"rerror": "ignore"}, 5, "read", "ignore"),
        ({"rerror": "enospc"}, 28, "read", "stop"),
        ({"rerror": "enospc"}, 5, "read", "report"),
        ({"werror": "stop"}, 5, "write", "stop"),
        ({"werror": "ignore"}, 28, "write", "ignore"),
        ({"werror": "report"}, 28, "write", "report"),
    ],
)
async def test_each_policy_does_what_it_says(policies, errno, kind, action):
    async with running(machine="pc") as emu:
        await plug(emu, errno=errno, once=True, **policies)
        disk = emu.disk("disk")
        request = asyncio.create_task(
            disk.read(BAD, 512) if kind == "read" else disk.write(BAD, bytes(512))
        )
        event = await emu.event("BLOCK_IO_ERROR")
        may_stop = policies.get("werror", "enospc") in ("stop", "enospc")
        assert event["data"] == {
            "device": "",
            "node-name": "n",
            "operation": kind,
            "action": action,
            "reason": "No space left on device" if errno == 28 else "Input/output error",
        } | ({"nospace": errno == 28} if may_stop else {})
        if action == "stop":
            await emu.event("STOP")
            assert await status(emu) == ("io-error", "nospace" if errno == 28 else "failed")
            assert not request.done()
            await emu.execute("cont")
            await emu.event("RESUME")
        if action == "report":
            with pytest.raises(OSError, match="Input/output error"):
                await request
        else:
            await request
        assert (await status(emu))[0] == "running"
        found, name = await stats(emu), "rd" if kind == "read" else "wr"
        failed = action == "report"
        assert found[f"failed_{name}_operations"] == failed
        assert found[f"{name}_operations"] == (not failed)


async def test_a_request_that_fails_again_stops_the_machine_again():
    async with running(machine="pc") as emu:
        await plug(emu, werror="stop")
        request = asyncio.create_task(emu.disk("disk").write(BAD, bytes(512)))
        for _ in range(3):
            await emu.event("STOP")
            assert await status(emu) == ("io-error", "failed")
            await emu.execute("cont")
        await emu.event("STOP")
        await emu.execute("system_reset")
        with pytest.raises(OSError, match="canceled"):
            await request
        assert await status(emu) == ("prelaunch", "failed")


async def test_nothing_is_asked_of_a_disk_while_the_machine_stands_still():
    async with running(machine="pc") as emu:
        await plug(emu)
        await emu.execute("stop")
        request = asyncio.create_task(emu.disk("disk").read(0, 512))
        await emu.execute("query-status")
        assert (await stats(emu))["rd_operations"] == 0
        await emu.execute("cont")
        assert await request == bytes(512)
        assert (await stats(emu))["rd_operations"] == 1


async def test_who_goes_on_at_once_hears_of_the_stop_nevertheless():
    async with running(machine="pc") as emu:
        await plug(emu, once=True, werror="stop")
        heard = []
        emu.emulator.listeners.append(lambda event: heard.append(event.event))
        request = asyncio.create_task(emu.disk("disk").write(BAD, bytes(512)))
        while "BLOCK_IO_ERROR" not in heard:
            await asyncio.sleep(0)
        await emu.emulator.continue_machine()  # before the machine has come to a stop
        await request
        assert heard == ["BLOCK_IO_ERROR", "STOP", "RESUME"]
        assert (await status(emu))[0] == "running"


async def test_what_a_device_would_not_pass_on_is_invalid():
    async with running(machine="pc") as emu:
        await plug(emu)
        disk = emu.disk("disk")
        for offset, length in ((1 << 20, 512), (-512, 512), (1, 512), (0, 100), (512, 1 << 20)):
            with pytest.raises(OSError, match="Invalid argument"):
                await disk.read(offset, length)
        with pytest.raises(OSError, match="Invalid argument"):
            await disk.discard(1, 1)
        found = await stats(emu)
        assert (found["invalid_rd_operations"], found["rd_operations"]) == (5, 0)
        assert found["invalid_unmap_operations"] == 0  # virtio keeps no account of discards
        assert not emu.events


async def test_discards_are_accounted_where_the_device_does():
    async with running(machine="pc") as emu:
        await emu.execute("device_add", driver="virtio-scsi", id="bus")
        await plug(emu, model="scsi-hd")
        disk = emu.disk("disk")
        await disk.discard(0, 4096)
        await disk.write_zeroes(0, 4096)
        await disk.write(8192, b"x" * 512)
        with pytest.raises(OSError, match="Input/output error"):
            await disk.flush()
        found = await stats(emu)
        assert (found["unmap_operations"], found["unmap_bytes"]) == (1, 4096)
        assert (found["wr_operations"], found["wr_bytes"]) == (2, 4608)
        assert (found["failed_flush_operations"], found["flush_operations"]) == (1, 0)


async def test_a_device_that_goes_takes_its_requests_with_it():
    async with running(machine="pc") as emu:
        await plug(emu, werror="stop")
        request = asyncio.create_task(emu.disk("disk").write(BAD, bytes(512)))
        await emu.event("STOP")
        await emu.execute("device_del", id="disk")
        await emu.execute("system_reset")
        await emu.event("DEVICE_DELETED")
        with pytest.raises(OSError, match="canceled"):
            await request


async def test_the_end_of_the_program_ends_what_waits():
    async with running(machine="pc") as emu:
        await plug(emu, werror="stop")
        await emu.execute(
            "x-emu-guest-io", device="disk", operation="write", offset=BAD, length=512
        )
        await emu.event("STOP")


async def test_guests_speak_by_qmp():
    async with running(machine="pc") as emu:
        await plug(emu, model="virtio-blk-pci")
        await emu.guest_io("disk", "write", offset=0, pattern=7, length=512)
        await emu.guest_io("disk", "write", offset=512, data="AAEC" * 128 + "AAA=" * 64)
        assert await emu.guest_io("disk", "read", offset=0, length=1024) == bytes(
            1024
        )  # a null disk
        await emu.guest_io("disk", "write-zeroes", offset=0, length=512)
        await emu.guest_io("disk", "discard", offset=0, length=512)
        with pytest.raises(OSError, match="Input/output error"):
            await emu.guest_io("disk", "read", offset=BAD, length=512)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"device": "nope", "operation": "flush"}, "Device 'nope' not found"),
        ({"device": "bus", "operation": "flush"}, "Device 'bus' has no disk"),
        ({"device": "disk", "operation": "read"}, "Parameter 'length' is missing"),
        (
            {"device": "disk", "operation": "write", "data": "AAAA", "length": 3},
            "Parameter 'data' expects neither length nor pattern beside it",
        ),
        (
            {"device": "disk", "operation": "read", "length": 1 << 31},
            "Parameter 'length' expects a number up to 2147483136",
        ),
    ],
)
async def test_bad_requests_are_refused(arguments, text):
    async with running(machine="pc") as emu:
        await emu.execute("device_add", driver="virtio-scsi", id="bus")
        await plug(emu)
        with pytest.raises(ExecuteError) as caught:
            await emu.execute("x-emu-guest-io", arguments)
        assert str(caught.value) == text


async def test_no_version_of_qemu_has_it():
    async with running(profile="7.2") as emu:
        commands = {each["name"] for each in await emu.execute("query-commands")}
        assert "x-emu-guest-io" not in commands
        schema = {each["name"] for each in await emu.execute("query-qmp-schema")}
        assert "X_EMU_GUEST_IO" not in schema
