"""Jobs on the disks of a machine: devices above them, drives that go, `-drive` names as job ids."""

from pathlib import Path

import pytest
from compat.daemon import BlockemuMachine, Both, Daemon, Machine, image
from compat.test_mirror import chain

DISK = (
    "-drive",
    "if=none,id=d,file=top.qcow2,node-name=top,backing.node-name=mid,backing.backing.node-name=base",
    *("-device", "virtio-scsi", "-device", "scsi-hd,id=dev,drive=d"),
)


def play(both: Both, script, *, racing: bool = False) -> tuple[Daemon, Daemon]:
    return both(script, *DISK, oracle=Machine, ours=BlockemuMachine, prepare=chain, racing=racing)


def test_the_filter_of_a_commit_is_not_seen_from_the_device(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        daemon("block-commit", device="d", top_node="mid", base_node="base", speed=1)
        daemon.job_reaches("d", 5 << 19)
        daemon("query-block")
        daemon("query-blockstats")
        daemon("query-named-block-nodes")
        daemon("block-job-cancel", device="d")
        daemon.job_until("d", "null")
        daemon("query-block")

    play(both, script)


def test_a_drive_that_is_unplugged_cancels_its_jobs(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        daemon("block-commit", device="d", top_node="mid", base_node="base", speed=1)
        daemon.job_reaches("d", 5 << 19)
        daemon("device_del", id="dev")
        daemon.wait("DEVICE_DELETED")
        daemon("query-jobs")
        daemon("query-block")

    play(both, script, racing=True)


@pytest.mark.parametrize("end", ["complete", "cancel"])
@pytest.mark.parametrize("sync", ["full", "top", "none"])
def test_a_device_goes_over_to_the_mirror(both: Both, sync: str, end: str) -> None:
    def script(daemon: Daemon) -> None:
        target = str(daemon.folder / "new.qcow2")
        daemon("drive-mirror", device="d", target=target, sync=sync, node_name="new")
        daemon.job_until("d", "ready")
        daemon(f"block-job-{end}", device="d")
        daemon.job_until("d", "null")
        daemon("query-block")
        daemon("x-debug-query-block-graph")

    for daemon in play(both, script, racing=True):
        assert "No errors" in image("check", "new.qcow2", cwd=daemon.folder)
        if sync != "none":
            told = image("compare", "top.qcow2", "new.qcow2", cwd=daemon.folder)
            assert "identical" in told


def test_a_device_goes_over_to_the_base_of_an_active_commit(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        daemon("block-commit", device="d", base_node="base", job_id="j")
        daemon.job_until("j", "ready")
        daemon("query-block")
        daemon("block-job-complete", device="j")
        daemon.job_until("j", "null")
        daemon("query-block")
        daemon("x-debug-query-block-graph")

    play(both, script, racing=True)


def test_a_mirror_copies_the_rest_of_the_targets_clusters(both: Both) -> None:
    """The target's own backing file is not open yet that could fill them up."""

    def prepare(folder: Path) -> None:
        chain(folder)
        more = ("-o", "cluster_size=1M", "-b", "mid.qcow2", "-F", "qcow2")
        image("create", "-f", "qcow2", *more, "new.qcow2", cwd=folder)

    def script(daemon: Daemon) -> None:
        target = str(daemon.folder / "new.qcow2")
        more = {"mode": "existing", "format": "qcow2", "job-id": "j", "granularity": 65536}
        daemon("drive-mirror", {"device": "d", "target": target, "sync": "top"} | more)
        daemon.job_until("j", "ready")
        daemon("query-block-jobs")
        daemon("block-job-cancel", device="j")
        daemon.job_until("j", "null")

    for daemon in both(
        script, *DISK, oracle=Machine, ours=BlockemuMachine, prepare=prepare, racing=True
    ):
        assert "identical" in image("compare", "top.qcow2", "new.qcow2", cwd=daemon.folder)
        assert "No errors" in image("check", "new.qcow2", cwd=daemon.folder)


@pytest.mark.parametrize("hmp", [False, True])
@pytest.mark.parametrize("runs", [False, True])
def test_jobs_stand_still_for_a_moment_when_the_machine_stops(
    both: Both, runs: bool, hmp: bool
) -> None:
    def script(daemon: Daemon) -> None:
        if runs:
            daemon("cont")
        daemon("block-stream", device="d", job_id="j", speed=1)
        daemon.job_reaches("j", 1 << 19)
        if hmp:
            daemon("human-monitor-command", {"command-line": "stop"})
        else:
            daemon("stop")
        daemon("query-status")

    play(both, script)


@pytest.mark.parametrize("tag", ["taken", "absent"])
def test_only_who_has_the_snapshot_stands_still_while_it_is_deleted(both: Both, tag: str) -> None:
    def prepare(folder: Path) -> None:
        chain(folder)
        image("snapshot", "-c", "taken", "top.qcow2", cwd=folder)

    def script(daemon: Daemon) -> None:
        daemon("block-commit", device="d", base_node="base", job_id="commit")
        daemon.job_until("commit", "ready")
        for devices in (["base"], ["top"]):
            daemon("snapshot-delete", job_id="delete", tag=tag, devices=devices)
            daemon.job_until("delete", "concluded")
            daemon("query-jobs")
            daemon("job-dismiss", id="delete")
        daemon("human-monitor-command", {"command-line": f"delvm {tag}"})

    both(script, *DISK, oracle=Machine, ours=BlockemuMachine, prepare=prepare, racing=True)
