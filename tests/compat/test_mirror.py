"""Mirrors: what is copied, what takes whose place, errors on both sides, and who may leave when."""

import subprocess
from pathlib import Path

import pytest
from compat.daemon import Both, Daemon, image

SIZE = 8 << 20
MIB = 1 << 20


def chain(folder: Path) -> None:
    """Three images on top of each other, and an empty one."""
    image("create", "-f", "qcow2", "base.qcow2", str(SIZE), cwd=folder)
    fill(folder, "base.qcow2", "write -q -P 1 0 4M")
    image("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "mid.qcow2", cwd=folder)
    fill(folder, "mid.qcow2", "write -q -P 2 2M 1M", "write -q -z 5M 64k")
    image("create", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2", cwd=folder)
    fill(folder, "top.qcow2", "write -q -P 3 3M 64k")
    image("create", "-f", "qcow2", "target.qcow2", str(SIZE), cwd=folder)


def fill(folder: Path, name: str, *commands: str) -> None:
    run = [part for command in commands for part in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *run, name], cwd=folder, check=True, timeout=30)


def open_image(daemon: Daemon, name: str, rules: list[dict] | None = None, **more: object) -> None:
    file = {"driver": "file", "filename": str(daemon.folder / f"{name}.qcow2")}
    if rules is not None:
        file = {"driver": "blkdebug", "image": file, "inject-error": rules}
    options = {key.replace("_", "-"): value for key, value in more.items()}
    daemon("blockdev-add", {"driver": "qcow2", "node-name": name, "file": file} | options)


def mirror(daemon: Daemon, sync: str = "full", **more: object) -> None:
    daemon("blockdev-mirror", job_id="j", device="top", target="target", sync=sync, **more)


def same(daemon: Daemon, *names: str) -> None:
    for name in names:
        assert "No errors" in image("check", f"{name}.qcow2", cwd=daemon.folder)
    first, *others = names
    for name in others:
        told = image("compare", f"{first}.qcow2", f"{name}.qcow2", cwd=daemon.folder)
        assert "identical" in told


@pytest.mark.parametrize("sync", ["full", "top", "none"])
def test_the_target_takes_the_sources_place(both: Both, sync: str) -> None:
    def script(daemon: Daemon) -> None:
        open_image(daemon, "top")
        open_image(daemon, "target", backing=None)
        mirror(daemon, sync)
        daemon.job_until("j", "ready")
        daemon("query-block-jobs")
        daemon("query-jobs")
        daemon("x-debug-query-block-graph")
        daemon("block-job-complete", device="j")
        daemon.job_until("j", "null")
        daemon("x-debug-query-block-graph")
        daemon("query-jobs")

    for daemon in both(script, prepare=chain, racing=True):
        same(daemon, *(["top", "target"] if sync == "full" else ["top"]))


@pytest.mark.parametrize("unmap", [False, True])
def test_zeroes_reach_the_target_as_such(both: Both, unmap: bool) -> None:
    def script(daemon: Daemon) -> None:
        open_image(daemon, "top")
        open_image(daemon, "target", **({"discard": "unmap"} if unmap else {}))
        daemon.write("target", 0, SIZE, 7)
        mirror(daemon)
        daemon.job_until("j", "ready")
        daemon("query-block-jobs")
        daemon("block-job-cancel", device="j")
        daemon.job_until("j", "null")

    for daemon in both(script, prepare=chain):
        same(daemon, "top", "target")


@pytest.mark.parametrize("mode", ["background", "write-blocking"])
def test_what_is_written_meanwhile_is_copied_too(both: Both, mode: str) -> None:
    def script(daemon: Daemon) -> None:
        open_image(daemon, "top")
        open_image(daemon, "target")
        mirror(daemon, copy_mode=mode, filter_node_name="filter")
        daemon.job_until("j", "ready")
        daemon.write("filter", 0, 512, 9)
        daemon.write("filter", 3 * MIB - 512, 66048, 10)
        daemon.discard("filter", MIB, MIB)
        daemon("block-job-complete", device="j")
        daemon.job_until("j", "null")
        daemon.verify("target", 0, 512, 9)
        daemon.verify("target", 3 * MIB - 512, 66048, 10)

    for daemon in both(script, prepare=chain, racing=True):
        same(daemon, "top", "target")


def test_force_cancel_when_ready_leaves_at_once(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_image(daemon, "top")
        open_image(daemon, "target")
        mirror(daemon)
        daemon.job_until("j", "ready")
        daemon("block-job-cancel", device="j", force=True)
        daemon.job_until("j", "null")
        daemon("query-jobs")
        daemon("x-debug-query-block-graph")

    both(script, prepare=chain)


def test_a_limited_mirror_is_cancelled_before_it_is_ready(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_image(daemon, "top")
        open_image(daemon, "target")
        mirror(daemon, speed=1, buf_size=65536)
        daemon.job_reaches("j", 65536)
        daemon("query-block-jobs")
        daemon.execute("block-job-complete", device="j")
        daemon("block-job-cancel", device="j")
        daemon.job_until("j", "null")
        daemon("x-debug-query-block-graph")

    both(script, prepare=chain)


def test_pause_resume_and_states_by_hand(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_image(daemon, "top")
        open_image(daemon, "target")
        mirror(daemon, auto_finalize=False, auto_dismiss=False)
        daemon.job_until("j", "ready")
        daemon("job-pause", id="j")
        daemon.job_until("j", "standby")
        daemon("query-jobs")
        daemon("job-complete", id="j")
        daemon("query-jobs")
        daemon("job-resume", id="j")
        daemon.job_until("j", "pending")
        daemon("query-block-jobs")
        daemon("job-finalize", id="j")
        daemon.job_until("j", "concluded")
        daemon("query-jobs")
        daemon("job-dismiss", id="j")
        daemon("x-debug-query-block-graph")

    both(script, prepare=chain)


POLICIES = ["report", "ignore", "stop", "enospc"]
WRITE_ERROR = [{"event": "write_aio", "errno": 28, "once": True}]
READ_ERROR = [{"event": "read_aio", "errno": 5, "once": True}]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("side", ["source", "target"])
def test_an_error_is_dealt_with_by_the_policy(both: Both, side: str, policy: str) -> None:
    def script(daemon: Daemon) -> None:
        open_image(daemon, "top", READ_ERROR if side == "source" else None)
        open_image(daemon, "target", WRITE_ERROR if side == "target" else None)
        mirror(daemon, **{f"on_{side}_error": policy, "sync": "top"})
        stopped = policy == "stop" or (policy == "enospc" and side == "target")
        if policy == "report" or (policy == "enospc" and side == "source"):
            daemon.job_until("j", "null")
            return
        if stopped:
            daemon.job_until("j", "paused")
            daemon("query-block-jobs")
            daemon("block-job-resume", device="j")
        daemon.job_until("j", "ready")
        daemon("query-block-jobs")
        daemon("block-job-cancel", device="j")
        daemon.job_until("j", "null")

    both(script, prepare=chain, racing=True)


def test_a_target_of_another_size_is_refused_when_the_job_runs(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_image(daemon, "top")
        daemon("blockdev-add", driver="null-co", node_name="target", size=65536)
        mirror(daemon)
        daemon.job_until("j", "null")
        daemon("x-debug-query-block-graph")

    both(script, prepare=chain)


def test_exports_go_over_to_the_target(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_image(daemon, "top")
        open_image(daemon, "target")
        path = str(daemon.folder / "nbd.sock")
        daemon("nbd-server-start", {"addr": {"type": "unix", "data": {"path": path}}})
        daemon("block-export-add", {"type": "nbd", "id": "e", "node-name": "top"})
        mirror(daemon)
        daemon.job_until("j", "ready")
        daemon("query-block-exports")
        daemon("block-job-complete", device="j")
        daemon.job_until("j", "null")
        daemon("query-block-exports")
        daemon("x-debug-query-block-graph")

    both(script, prepare=chain, racing=True)


@pytest.mark.parametrize(
    "wrong", [{"speed": -1}, {"buf_size": -1}, {"granularity": 1000}, {"granularity": 256}]
)
def test_a_mirror_refused_leaves_nothing(both: Both, wrong: dict[str, int]) -> None:
    def script(daemon: Daemon) -> None:
        open_image(daemon, "top")
        open_image(daemon, "target")
        arguments = {"job-id": "j", "device": "top", "target": "target", "sync": "full"}
        wire = {key.replace("_", "-"): value for key, value in wrong.items()}
        daemon.execute("blockdev-mirror", arguments | wire)
        daemon("query-jobs")
        daemon("x-debug-query-block-graph")
        daemon("blockdev-del", node_name="top")

    both(script, prepare=chain)
