"""The reason to be: backups of a real disk, scripted, the same on the real daemon and on ours."""

import subprocess
from pathlib import Path

import pytest
from compat.daemon import Both, Daemon, image

SIZE = 8 << 20
MIB = 1 << 20


def qcow2_with_backing(folder: Path) -> None:
    """A golden image, half overwritten by the overlay that is the disk."""
    image("create", "-f", "qcow2", "golden.qcow2", str(SIZE), cwd=folder)
    _fill(folder, "golden.qcow2", "qcow2", "write -q -P 1 0 4M")
    image("create", "-f", "qcow2", "-b", "golden.qcow2", "-F", "qcow2", "disk", cwd=folder)
    _fill(folder, "disk", "qcow2", "write -q -P 2 2M 4M", "write -q -z 1M 64k", "discard -q 5M 1M")


def qcow2_alone(folder: Path) -> None:
    image("create", "-f", "qcow2", "-o", "cluster_size=4096", "disk", str(SIZE), cwd=folder)
    _fill(folder, "disk", "qcow2", "write -q -P 2 2M 4M")


def raw_file(folder: Path) -> None:
    image("create", "-f", "raw", "disk", str(SIZE), cwd=folder)
    _fill(folder, "disk", "raw", "write -q -P 2 2M 4M")


def _fill(folder: Path, name: str, kind: str, *commands: str) -> None:
    run = [part for command in commands for part in ("-c", command)]
    subprocess.run(["qemu-io", "-f", kind, *run, name], cwd=folder, check=True, timeout=30)


def open_disk(daemon: Daemon, kind: str) -> None:
    file = {"driver": "file", "filename": str(daemon.folder / "disk")}
    daemon("blockdev-add", {"driver": kind, "node-name": "disk", "file": file})


def open_target(daemon: Daemon, name: str, backing: str | None = None) -> None:
    """Make an image by qemu-img, on top of the previous backup if there is one, and open it."""
    path = daemon.folder / f"{name}.qcow2"
    below = ["-b", f"{backing}.qcow2", "-F", "qcow2"] if backing else []
    image("create", "-f", "qcow2", *below, path.name, str(SIZE), cwd=daemon.folder)
    file = {"driver": "file", "filename": str(path)}
    daemon("blockdev-add", {"driver": "qcow2", "node-name": name, "file": file})


def back_up(daemon: Daemon, name: str, **arguments: object) -> None:
    """Run one backup to its end and let go of its target."""
    daemon("blockdev-backup", job_id=name, device="disk", target=name, **arguments)
    daemon.job_until(name, "null")
    daemon("query-jobs")
    daemon("blockdev-del", node_name=name)


def some_writes(daemon: Daemon, pattern: int) -> None:
    daemon.write("disk", 0, 512, pattern)
    daemon.write("disk", 3 * MIB - 512, 4096, pattern)
    daemon.write("disk", SIZE - 65536, 65536, pattern)


def incremental_chain(kind: str):
    def script(daemon: Daemon) -> None:
        open_disk(daemon, kind)
        daemon("block-dirty-bitmap-add", node="disk", name="bitmap0")
        open_target(daemon, "full")
        back_up(daemon, "full", sync="full")
        daemon("query-named-block-nodes", flat=True)

        below = "full"
        for number in (3, 4, 5):
            some_writes(daemon, number)
            daemon.write("disk", number * MIB, MIB, number)
            name = f"inc{number}"
            open_target(daemon, name, below)
            daemon("x-debug-block-dirty-bitmap-sha256", node="disk", name="bitmap0")
            back_up(daemon, name, sync="incremental", bitmap="bitmap0")
            daemon("query-named-block-nodes", flat=True)
            below = name

        # Cancelled in the middle: the bitmap is as before, with what was written meanwhile
        daemon.write("disk", 0, 4 * MIB, 6)
        open_target(daemon, "cancelled", below)
        daemon(
            "blockdev-backup", job_id="cancelled", device="disk", target="cancelled",
            sync="incremental", bitmap="bitmap0", speed=1, filter_node_name="filter",
        )  # fmt: skip
        daemon.execute("block-dirty-bitmap-clear", node="disk", name="bitmap0")
        daemon.write("filter", 6 * MIB, 65536, 7)
        daemon("block-job-cancel", device="cancelled")
        daemon.job_until("cancelled", "null")
        daemon("blockdev-del", node_name="cancelled")
        daemon("query-named-block-nodes", flat=True)
        daemon("x-debug-block-dirty-bitmap-sha256", node="disk", name="bitmap0")

        open_target(daemon, "last", below)
        back_up(daemon, "last", sync="incremental", bitmap="bitmap0")
        daemon("block-dirty-bitmap-remove", node="disk", name="bitmap0")
        daemon("blockdev-del", node_name="disk")
        daemon("query-named-block-nodes")

    return script


def check_images(daemon: Daemon, kind: str, last: str) -> None:
    """Each image is clean, and the newest backup reads like the disk."""
    for path in sorted(daemon.folder.glob("*.qcow2")):
        assert "No errors" in image("check", path.name, cwd=daemon.folder)
    if kind == "qcow2":
        assert "No errors" in image("check", "-f", kind, "disk", cwd=daemon.folder)
    same = image("compare", "-f", kind, "-F", "qcow2", "disk", f"{last}.qcow2", cwd=daemon.folder)
    assert "Images are identical." in same


@pytest.mark.parametrize(
    ("kind", "prepare"),
    [("qcow2", qcow2_with_backing), ("qcow2", qcow2_alone), ("raw", raw_file)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_incremental_chain_equals_the_disk_and_survives_a_cancelled_backup(
    both: Both, kind: str, prepare
) -> None:
    for daemon in both(incremental_chain(kind), prepare=prepare, racing=True):
        check_images(daemon, kind, "last")


def test_full_and_top_backups_copy_what_they_should(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_disk(daemon, "qcow2")
        open_target(daemon, "full")
        back_up(daemon, "full", sync="full")
        open_target(daemon, "top")
        back_up(daemon, "top", sync="top")
        daemon("blockdev-del", node_name="disk")

    for daemon in both(script, prepare=qcow2_with_backing, racing=True):
        check_images(daemon, "qcow2", "full")
        image("rebase", "-u", "-b", "golden.qcow2", "-F", "qcow2", "top.qcow2", cwd=daemon.folder)
        check_images(daemon, "qcow2", "top")


def test_sync_none_keeps_the_disk_as_it_was(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_disk(daemon, "qcow2")
        open_target(daemon, "copy")
        daemon(
            "blockdev-backup", job_id="copy", device="disk", target="copy", sync="none",
            filter_node_name="filter",
        )  # fmt: skip
        daemon.write("filter", 0, 65536, 9)
        daemon.write("filter", 0, 65536, 10)
        daemon.write("filter", 2 * MIB + 100, 100, 9)
        daemon("query-block-jobs")
        daemon("x-debug-query-block-graph")
        daemon("job-cancel", id="copy")
        daemon.job_until("copy", "null")
        daemon.verify("copy", 0, 65536, 1)
        daemon.verify("copy", 2 * MIB, 65536, 2)
        daemon.verify("copy", 65536, 65536, 0)
        daemon.verify("disk", 0, 65536, 10)

    for daemon in both(script, prepare=qcow2_with_backing):
        assert "No errors" in image("check", "copy.qcow2", cwd=daemon.folder)


def test_a_full_backup_is_of_the_moment_it_began(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_disk(daemon, "qcow2")
        open_target(daemon, "copy")
        daemon(
            "blockdev-backup", job_id="copy", device="disk", target="copy", sync="full", speed=1,
            filter_node_name="filter",
        )  # fmt: skip
        daemon.write("filter", 0, 7 * MIB, 9)
        daemon("block-job-set-speed", device="copy", speed=0)
        daemon.job_until("copy", "null")
        daemon.verify("copy", 0, MIB, 1)
        daemon.verify("copy", 2 * MIB, 3 * MIB, 2)
        daemon.verify("disk", 0, 7 * MIB, 9)

    both(script, prepare=qcow2_with_backing, racing=True)


def test_auto_finalize_and_auto_dismiss_off(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_disk(daemon, "qcow2")
        open_target(daemon, "full")
        manual = {"auto_finalize": False, "auto_dismiss": False}
        daemon("blockdev-backup", job_id="j", device="disk", target="full", sync="full", **manual)
        daemon.wait("BLOCK_JOB_PENDING")
        daemon("query-jobs")
        daemon("query-block-jobs")
        daemon.execute("job-dismiss", id="j")
        daemon("job-finalize", id="j")
        daemon("query-jobs")
        daemon("query-block-jobs")
        daemon("job-dismiss", id="j")
        daemon("query-jobs")
        daemon("query-block-jobs")
        daemon("blockdev-backup", job_id="k", device="disk", target="full", sync="full", **manual)
        daemon.wait("BLOCK_JOB_PENDING")
        daemon("block-job-cancel", device="k")
        daemon("query-jobs")
        daemon("query-block-jobs")
        daemon("block-job-dismiss", id="k")
        daemon("query-jobs")

    both(script, prepare=qcow2_with_backing, racing=True)


def test_speed_pause_and_resume(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_disk(daemon, "qcow2")
        open_target(daemon, "full")
        daemon(
            "blockdev-backup", job_id="j", device="disk", target="full", sync="full", speed=1,
            auto_dismiss=False,
        )  # fmt: skip
        daemon.pause("job-pause", id="j")
        daemon("query-jobs")
        daemon("query-block-jobs")
        daemon.execute("job-pause", id="j")
        daemon("job-resume", id="j")
        daemon.execute("job-resume", id="j")
        daemon("block-job-set-speed", device="j", speed=65536)
        daemon.pause("block-job-pause", device="j")
        daemon("query-block-jobs")
        daemon.execute("block-job-pause", device="j")
        daemon("block-job-resume", device="j")
        daemon("block-job-set-speed", device="j", speed=0)
        daemon.job_until("j", "concluded")
        daemon("query-jobs")
        daemon("query-block-jobs")
        daemon("job-dismiss", id="j")

    both(script, prepare=qcow2_with_backing, racing=True)


def test_job_cancel_while_paused_and_while_running(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_disk(daemon, "qcow2")
        open_target(daemon, "full")
        slow = {"sync": "full", "speed": 1, "auto_dismiss": False}
        daemon("blockdev-backup", job_id="j", device="disk", target="full", **slow)
        daemon.pause("job-pause", id="j")
        daemon("job-cancel", id="j")
        daemon.job_until("j", "concluded")
        daemon("query-jobs")
        daemon("job-dismiss", id="j")
        daemon("blockdev-backup", job_id="k", device="disk", target="full", **slow)
        daemon("block-job-cancel", device="k", force=True)
        daemon.job_until("k", "concluded")
        daemon("query-jobs")
        daemon("block-job-dismiss", id="k")
        daemon("blockdev-del", node_name="full")

    both(script, prepare=qcow2_with_backing, racing=True)


def test_two_backups_of_one_disk_at_once(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_disk(daemon, "qcow2")
        for name in ("one", "two"):
            daemon("block-dirty-bitmap-add", node="disk", name=name)
        some_writes(daemon, 3)
        for name in ("one", "two"):
            open_target(daemon, name)
            daemon(
                "blockdev-backup", job_id=name, device="disk", target=name, sync="incremental",
                bitmap=name, auto_finalize=False, auto_dismiss=False,
            )  # fmt: skip
            daemon.job_until(name, "pending")
        daemon("query-jobs")
        for name in ("two", "one"):
            daemon("job-finalize", id=name)
            daemon("job-dismiss", id=name)
        daemon("query-named-block-nodes", flat=True)

    both(script, prepare=qcow2_with_backing, racing=True)
