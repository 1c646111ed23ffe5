"""Backup jobs in process, with stepped time: what is said in which order, and what is copied.

The sequences are those of the real daemon (see tests/compat/test_backup_script.py for proof).
"""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import CLUSTER, KIB, MIB, Disk, Machine, turns

from blockemu.errors import QmpError

SECOND = 1_000_000_000
BEGUN = ["j created", "j running", "j paused", "j running"]
DONE = ["j waiting", "j pending"]


def completed(done: int = 4096, total: int = 4096) -> list[str]:
    return [*DONE, f"COMPLETED {done}/{total}K", "j concluded", "j null"]


def cancelled(done: int, total: int = 4096) -> list[str]:
    return ["j aborting", f"CANCELLED {done}/{total}K", "j concluded", "j null"]


async def two_disks(machine: Machine, size: int = 4 * MIB) -> tuple[Disk, Disk]:
    return machine.disk("s", os.urandom(size)), machine.disk("d", size)


async def back_up(machine: Machine, **options: Any) -> Any:
    settings = {"job_id": "j", "device": "s", "target": "d", "sync": "full"} | options
    return await machine("blockdev-backup", **settings)


# A whole life


async def test_what_never_waits_is_over_before_the_reply() -> None:
    async with Machine() as machine:
        source, target = await two_disks(machine)
        await back_up(machine)
        assert machine.news() == [*BEGUN, *completed(), "reply"]
        assert target.data == source.data
        assert list(machine.emu.graph.nodes) == ["s", "d"]  # no filter is left
        assert not source.blockers
        assert not target.parents


async def test_what_waits_is_over_after_the_reply() -> None:
    async with Machine() as machine:
        source, target = await two_disks(machine)
        target.held.add("write")
        await back_up(machine)
        assert machine.news() == [*BEGUN, "reply"]
        target.let()
        await machine.until("j null")
        assert machine.news() == completed()
        assert target.data == source.data


@pytest.mark.parametrize("size", [4 * MIB + 512, 100 * KIB, 512])
async def test_progress_counts_whole_clusters(size: int) -> None:
    async with Machine() as machine:
        source, target = await two_disks(machine, size)
        await back_up(machine, auto_dismiss=False)
        whole = -(-size // CLUSTER) * CLUSTER
        assert machine.job().progress.current == machine.job().progress.total == whole
        assert target.data == source.data


async def test_the_users_word_is_waited_for() -> None:
    async with Machine() as machine:
        await two_disks(machine)
        await back_up(machine, auto_finalize=False, auto_dismiss=False)
        assert machine.news() == [*BEGUN, *DONE, "PENDING", "reply"]
        await machine("job-complete", id="j")
        await machine("job-dismiss", id="j")
        await machine("job-pause", id="j")
        refusal = "Job 'j' in state 'pending' cannot accept command verb '{}'"
        assert machine.news() == [refusal.format(v) for v in ("complete", "dismiss", "pause")]
        await machine("job-finalize", id="j")
        assert machine.news() == ["COMPLETED 4096/4096K", "j concluded", "reply"]
        await machine("block-job-dismiss", id="j")
        assert machine.news() == ["j null", "reply"]


# Holding, pausing, resuming


async def held(machine: Machine, **options: Any) -> tuple[Disk, Disk]:
    """Begin a backup that stands still after its first MiB."""
    disks = await two_disks(machine)
    await back_up(machine, speed=1, **options)
    assert machine.job().progress.current == MIB
    machine.news()
    return disks


async def test_cancel_of_a_job_held_by_its_speed() -> None:
    async with Machine() as machine:
        await held(machine)
        await machine("job-cancel", id="j")
        assert machine.news() == [*cancelled(1024), "reply"]


async def test_a_new_speed_takes_effect_at_once() -> None:
    async with Machine() as machine:
        source, target = await held(machine)
        await machine("block-job-set-speed", device="j", speed=2 * MIB)
        assert machine.job().progress.current == MIB  # has had its half second's worth
        machine.clock.step(SECOND // 2 + 1000)
        assert machine.job().progress.current == 2 * MIB
        await machine("block-job-set-speed", device="j", speed=0)
        assert machine.news() == ["reply", *completed(), "reply"]
        assert target.data == source.data


async def test_a_lower_speed_does_not_wake_the_job() -> None:
    async with Machine() as machine:
        await two_disks(machine)
        await back_up(machine, speed=MIB)
        deadline = machine.clock.next_deadline
        await machine("block-job-set-speed", device="j", speed=MIB // 2)
        assert machine.job().progress.current == MIB
        assert machine.clock.next_deadline is not None
        assert deadline is not None
        assert machine.clock.next_deadline > deadline  # but the copying keeps to it
        await machine("block-job-set-speed", device="j", speed=-1)
        assert machine.news()[-1] == "Parameter 'speed' expects a non-negative value"


async def test_pause_and_resume_of_a_job_held_by_its_speed() -> None:
    async with Machine() as machine:
        await held(machine)
        await machine("job-pause", id="j")
        assert machine.news() == ["j paused", "reply"]
        machine.clock.step(10**15)
        assert machine.job().progress.current == MIB
        await machine("job-pause", id="j")
        assert machine.news() == ["Job is already paused"]
        await machine("job-resume", id="j")
        assert machine.news() == ["j running", "reply"]
        await machine("job-resume", id="j")
        assert machine.news() == ["Can't resume a job that was not paused"]


async def test_a_pause_lets_what_is_being_copied_come_to_its_end() -> None:
    async with Machine() as machine:
        source, target = await two_disks(machine)
        target.held.add("write")
        await back_up(machine)
        machine.news()
        await machine("job-pause", id="j")
        (info,) = await machine("query-block-jobs")
        assert (info.busy, info.paused, info.status.value) == (True, True, "running")
        assert machine.news() == ["reply", "reply"]
        target.let()
        await machine.until("j paused")
        await machine("block-job-cancel", device="j")
        assert machine.news()[-1] == "The block job for device 'j' is currently paused"
        await machine("job-resume", id="j")
        assert machine.news() == ["j running", *completed(), "reply"]
        assert target.data == source.data


async def test_cancel_of_a_paused_job() -> None:
    async with Machine() as machine:
        await held(machine)
        await machine("job-pause", id="j")
        machine.news()
        await machine("block-job-cancel", device="j", force=True)
        assert machine.news() == ["j running", *cancelled(1024), "reply"]


async def test_a_cancelled_job_counts_as_paused_no_more() -> None:
    async with Machine() as machine:
        _, target = await two_disks(machine)
        target.errors["write"] = errno.ENOSPC
        await back_up(machine, on_target_error="stop", auto_dismiss=False)
        await machine("job-cancel", id="j")
        (info,) = await machine("query-block-jobs")
        assert (info.status.value, info.paused, info.busy) == ("concluded", False, False)
        assert info.io_status.value == "ok"
        assert info.error == "Operation canceled"


async def test_an_error_while_the_job_comes_to_rest_is_tried_again_later() -> None:
    async with Machine() as machine:
        source, target = await two_disks(machine)
        target.held.add("write")
        target.errors["write"] = errno.EIO
        await back_up(machine)
        await machine("job-pause", id="j")
        machine.news()
        target.let()
        await machine.until("j paused")
        assert machine.news() == ["j paused"]
        target.errors.clear()
        await machine("job-resume", id="j")
        assert machine.news() == ["j running", *completed(), "reply"]
        assert target.data == source.data


async def test_cancel_during_requests_waits_for_them() -> None:
    async with Machine() as machine:
        _, target = await two_disks(machine)
        target.held.add("write")
        await back_up(machine)
        machine.news()
        await machine("block-job-cancel", device="j")
        assert machine.news() == ["reply"]
        target.let()
        await machine.until("j null")
        assert machine.news() == cancelled(4096)


async def test_a_guest_that_leaves_makes_the_job_pause_twice() -> None:
    async with Machine() as machine:
        await held(machine, filter_node_name="f")
        await machine.emu.graph.remove(machine.guest("f"))
        assert machine.news() == ["j paused", "j running"] * 2


async def test_shutdown_pauses_before_it_cancels() -> None:
    async with Machine() as machine:
        await held(machine)
        await machine.emu.close()
        assert machine.news() == ["j paused", "j running", *cancelled(1024)]


# The guest goes on


async def test_a_guests_write_waits_until_the_old_data_is_safe() -> None:
    async with Machine() as machine:
        source, target = await held(machine, filter_node_name="f")
        was = bytes(source.data)
        guest = machine.guest("f")
        target.held.add("write")
        source.log.clear()
        target.log.clear()
        write = asyncio.ensure_future(guest.pwrite(3 * MIB + 5, b"new"))
        await turns()
        start = 3 * MIB
        assert source.log == [("read", start, CLUSTER)]
        assert target.log == [("write", start, CLUSTER)]
        target.let()
        await write
        assert source.log[1:] == [("write", start + 5, 3)]
        assert machine.job().progress.current == MIB + CLUSTER
        await guest.pwrite(start + 100, b"new")  # saved already
        await guest.write_zeroes(2 * MIB, 2 * CLUSTER)
        await guest.pwrite(0, b"new")  # copied already
        assert machine.job().progress.current == MIB + 3 * CLUSTER
        await machine("block-job-set-speed", device="j", speed=0)
        assert target.data == was
        assert source.data != was


async def test_a_guests_write_fails_if_the_old_data_cannot_be_saved() -> None:
    async with Machine() as machine:
        source, target = await held(machine, filter_node_name="f")
        was = bytes(source.data)
        guest = machine.guest("f")
        target.errors["write"] = errno.ENOSPC
        with pytest.raises(OSError, match="No space left"):
            await guest.pwrite(3 * MIB, b"new")
        assert source.data == was
        target.errors.clear()
        await guest.pwrite(3 * MIB, b"new")
        assert target.data[3 * MIB : 3 * MIB + CLUSTER] == was[3 * MIB : 3 * MIB + CLUSTER]


async def test_what_is_placed_for_a_bulk_write_is_saved_before() -> None:
    async with Machine() as machine:
        await held(machine, filter_node_name="f")
        with pytest.raises(NotImplementedError):  # the disk cannot say where; that comes after
            await machine.guest("f").place([(3 * MIB, CLUSTER)])
        assert machine.job().progress.current == MIB + CLUSTER


async def test_reads_go_past_the_filter() -> None:
    async with Machine() as machine:
        source, _ = await held(machine, filter_node_name="f")
        await machine.guest("f").pread(3 * MIB, buf := bytearray(100))
        assert bytes(buf) == source.data[3 * MIB : 3 * MIB + 100]
        assert machine.job().progress.current == MIB


async def test_sync_none_copies_only_what_is_overwritten() -> None:
    async with Machine() as machine:
        source, target = await two_disks(machine)
        was = bytes(source.data)
        await back_up(machine, sync="none", filter_node_name="f")
        assert machine.news() == [*BEGUN, "reply"]
        await machine.guest("f").pwrite(MIB + 1, b"new")
        assert machine.job().progress.current == CLUSTER
        assert machine.job().progress.total == 4 * MIB
        machine.clock.step(10**15)
        await turns()
        assert [offset for _, offset, _ in target.log] == [MIB]
        await machine("job-cancel", id="j")
        assert machine.news() == [*cancelled(64), "reply"]
        assert target.data[MIB : MIB + CLUSTER] == was[MIB : MIB + CLUSTER]


# Errors and what to do about them


@pytest.mark.parametrize(
    ("kind", "operation", "option"),
    [("read", "read", "on_source_error"), ("write", "write", "on_target_error")],
)
async def test_an_error_that_is_reported_ends_the_job(
    kind: str, operation: str, option: str
) -> None:
    async with Machine() as machine:
        source, target = await two_disks(machine)
        (source if kind == "read" else target).errors[kind] = errno.EIO
        await back_up(machine, **{option: "report"})
        assert machine.news() == [
            *BEGUN, f"ERROR {operation} report", "j aborting",
            "COMPLETED 0/4096K Input/output error", "j concluded", "j null", "reply",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "code", "status"),
    [
        ("stop", errno.EIO, "failed"),
        ("stop", errno.ENOSPC, "nospace"),
        ("enospc", errno.ENOSPC, "nospace"),
        ("auto", errno.ENOSPC, "nospace"),
    ],
)
async def test_an_error_that_stops_waits_for_the_user(policy: str, code: int, status: str) -> None:
    async with Machine() as machine:
        source, target = await two_disks(machine)
        target.errors["write"] = code
        await back_up(machine, on_target_error=policy)
        assert machine.news() == [*BEGUN, "ERROR write stop", "j paused", "reply"]
        (info,) = await machine("query-block-jobs")
        assert (info.io_status.value, info.paused) == (status, True)
        await machine("job-resume", id="j")
        assert machine.news() == ["reply", "j running", "ERROR write stop", "j paused", "reply"]
        target.errors.clear()
        await machine("job-resume", id="j")
        assert machine.news() == ["j running", *completed(), "reply"]
        assert target.data == source.data


@pytest.mark.parametrize("policy", ["enospc", "auto"])
async def test_other_errors_than_a_full_disk_are_reported(policy: str) -> None:
    async with Machine() as machine:
        _, target = await two_disks(machine)
        target.errors["write"] = errno.EIO
        await back_up(machine, on_target_error=policy)
        assert "ERROR write report" in machine.news()


async def test_an_error_that_is_ignored_is_tried_again_and_blocks_nobody() -> None:
    async with Machine() as machine:
        source, target = await two_disks(machine)
        source.errors["read"] = errno.EIO
        await back_up(machine, on_source_error="ignore")
        news = machine.news()
        assert news[:5] == [*BEGUN, "ERROR read ignore"]
        assert "reply" in news
        source.errors.clear()
        await machine.until("j null")
        assert target.data == source.data


async def test_cancel_while_an_error_is_ignored_again_and_again() -> None:
    async with Machine() as machine:
        source, _ = await two_disks(machine)
        source.errors["read"] = errno.EIO
        await back_up(machine, on_source_error="ignore")
        await machine("job-cancel", id="j")
        await machine.until("j null")


async def test_a_job_stopped_by_an_error_can_be_cancelled() -> None:
    async with Machine() as machine:
        _, target = await two_disks(machine)
        target.errors["write"] = errno.EIO
        await back_up(machine, on_target_error="stop")
        machine.news()
        await machine("job-cancel", id="j")
        assert machine.news() == ["j running", *cancelled(0), "reply"]


# Bitmaps


async def marked(machine: Machine, *offsets: int, name: str = "b") -> None:
    await machine("block-dirty-bitmap-add", node="s", name=name)
    guest = machine.guest("s")
    for offset in offsets:
        await guest.pwrite(offset, b"dirty")
    await machine.emu.graph.remove(guest)
    machine.news()


def dirty(machine: Machine, name: str = "b") -> list[int]:
    found = machine.emu.graph.find("s").bitmap_set.find(name)
    return [int(start) // CLUSTER for start in found.bits.extents()[0]]


@pytest.mark.parametrize(
    ("sync", "mode", "good", "kept"),
    [
        ("bitmap", "on-success", True, [50]),
        ("bitmap", "on-success", False, [0, 40, 50]),
        ("bitmap", "never", True, [0, 40, 50]),
        ("bitmap", "never", False, [0, 40, 50]),
        ("bitmap", "always", True, [50]),
        ("bitmap", "always", False, [40, 50]),
        ("full", "on-success", True, [50]),
        ("full", "on-success", False, [0, 40, 50]),
        ("full", "always", True, [50]),
        ("full", "always", False, [16]),
    ],
)
async def test_what_becomes_of_the_bitmap(
    sync: str, mode: str, good: bool, kept: list[int]
) -> None:
    """Dirty are 0 and 40; 50 is written while the job runs; on failure, the first piece is done."""
    async with Machine() as machine:
        source, target = await two_disks(machine)
        await marked(machine, 0, 40 * CLUSTER)
        was = bytes(source.data)
        await back_up(
            machine, sync=sync, bitmap="b", bitmap_mode=mode, speed=1, filter_node_name="f"
        )
        guest = machine.guest("f")
        await guest.pwrite(50 * CLUSTER, b"later")
        await machine.emu.graph.remove(guest)
        if good:
            await machine("block-job-set-speed", device="j", speed=0)
        else:
            await machine("job-cancel", id="j")
        assert machine.news()[-2:] == ["j null", "reply"]
        found = machine.emu.graph.find("s").bitmap_set.find("b")
        assert not found.busy
        assert found.recording
        if sync == "full" and mode == "always" and not good:
            # All that was not copied: all but the first MiB and what was saved, and that is dirty.
            starts, ends = found.bits.extents()
            assert (starts.tolist(), ends.tolist()) == ([MIB], [4 * MIB])
        else:
            assert dirty(machine) == kept
        if good and sync == "full":
            assert target.data == was


async def test_an_incremental_backup_copies_what_is_marked() -> None:
    async with Machine() as machine:
        _, target = await two_disks(machine)
        await marked(machine, 3 * CLUSTER, 20 * CLUSTER + 7)
        await back_up(machine, sync="incremental", bitmap="b")
        assert machine.news() == [*BEGUN, *completed(128, 128), "reply"]
        assert [(o, n) for _, o, n in target.log] == [
            (3 * CLUSTER, CLUSTER), (20 * CLUSTER, CLUSTER),
        ]  # fmt: skip
        assert dirty(machine) == []


async def test_a_bitmap_in_use_is_left_alone_by_others() -> None:
    async with Machine() as machine:
        await two_disks(machine)
        machine.disk("e", 4 * MIB)
        await marked(machine, 0)
        await back_up(machine, sync="incremental", bitmap="b", auto_finalize=False)
        machine.news()
        await back_up(machine, job_id="k", target="e", sync="incremental", bitmap="b")
        await machine("block-dirty-bitmap-remove", node="s", name="b")
        busy = "Bitmap 'b' is currently in use by another operation and cannot be used"
        assert [line for line in machine.news() if "Bitmap" in line] == [busy, busy]


# Refusals leave nothing behind


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"target": "s"}, "Source and target cannot be the same"),
        ({"target": "small"}, "Source and target image have different sizes"),
        ({"sync": "incremental"}, "must provide a valid bitmap name for 'incremental' sync mode"),
        ({"sync": "bitmap", "bitmap": "x"}, "Bitmap 'x' could not be found"),
        ({"bitmap_mode": "always"}, "Cannot specify bitmap sync mode without a bitmap"),
        ({"speed": -1}, "Parameter 'speed' expects a non-negative value"),
        ({"job_id": "1x"}, "Invalid job ID '1x'"),
        ({"filter_node_name": "s"}, "Could not create node: Duplicate nodes with node-name='s'"),
        ({"x_perf": {"max-workers": 0}}, "max-workers must be between 1 and 2147483647"),
        ({"x_perf": {"max-chunk": 1024}},
         "Required max-chunk (1024) is less than backup cluster size (65536)"),
        ({"target": "ro"}, "Could not create node: Block node is read-only"),
    ],
)  # fmt: skip
async def test_a_refusal_leaves_nothing_behind(options: dict[str, Any], text: str) -> None:
    async with Machine() as machine:
        source, target = await two_disks(machine)
        machine.disk("small", MIB)
        machine.disk("ro", 4 * MIB, read_only=True)
        await marked(machine)
        nodes = set(machine.emu.graph.nodes)
        if options.keys() == {"speed"} or options.keys() == {"x_perf"}:
            options = options | {"bitmap": "b", "bitmap_mode": "always", "sync": "bitmap"}
        error = await back_up(machine, **options)
        assert isinstance(error, QmpError)
        assert machine.news()[-1] == text
        assert set(machine.emu.graph.nodes) == nodes
        assert not source.parents
        assert not target.parents
        assert not source.blockers
        assert not target.blockers
        assert len(source.bitmap_set or ()) == 1
        assert source.quiesce_counter == 0
        await machine("block-dirty-bitmap-remove", node="s", name="b")
        assert machine.news() == ["reply"]


async def test_a_job_that_fails_before_its_start_says_so() -> None:
    async with Machine() as machine:
        await two_disks(machine)
        await back_up(machine, speed=-1)
        assert machine.news() == [
            "j created", "j null", "Parameter 'speed' expects a non-negative value",
        ]  # fmt: skip


async def test_a_second_job_makes_the_first_pause() -> None:
    async with Machine() as machine:
        await held(machine)
        machine.disk("e", 4 * MIB)
        await back_up(machine, job_id="k", target="e", auto_finalize=False)
        assert machine.news() == [
            "j paused", "j running", "j paused", "k created", "k running", "k paused", "k running",
            "j running", "k waiting", "k pending", "PENDING", "reply",
        ]  # fmt: skip


# Real images


def make_image(folder: Path, name: str, *options: str) -> str:
    path = str(folder / name)
    subprocess.run(["qemu-img", "create", "-q", *options, path, "8M"], check=True)
    return path


@pytest.mark.parametrize("source_format", ["raw", "qcow2"])
@pytest.mark.parametrize("sync", ["full", "top"])
async def test_images_are_copied_and_clean(
    tmp_path: Path, program: Callable[[str], str], source_format: str, sync: str
) -> None:
    for name in ("qemu-img", "qemu-io"):
        program(name)
    source = make_image(tmp_path, "s", "-f", source_format)
    write = ["-c", "write -q -P 1 1M 2M", "-c", "write -q -P 2 5M 100k", "-c", "write -q -z 2M 64k"]
    subprocess.run(["qemu-io", "-f", source_format, *write, source], check=True)
    target = make_image(tmp_path, "d", "-f", "qcow2")
    async with Machine() as machine:
        for name, kind, path in (("s", source_format, source), ("d", "qcow2", target)):
            options = {"driver": "file", "filename": path}
            await machine("blockdev-add", driver=kind, node_name=name, file=options)
        await back_up(machine, sync=sync)
        await machine.until("j null")
        assert "COMPLETED" in " ".join(machine.news())
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", target], check=True)
    compare = ["qemu-img", "compare", "-q", "-f", source_format, "-F", "qcow2", source, target]
    subprocess.run(compare, check=True)


async def test_a_null_device_is_backed_up() -> None:
    async with Machine() as machine:
        for name in "sd":
            await machine("blockdev-add", driver="null-co", node_name=name, size=MIB)
        machine.news()
        await back_up(machine)
        assert machine.news() == [*BEGUN, *completed(1024, 1024), "reply"]
        assert len(machine.warnings) == 1
