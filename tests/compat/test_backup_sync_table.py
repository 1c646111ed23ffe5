"""What a backup copies and what it makes of its bitmap: each sync mode with each bitmap mode.

After each step the bitmap's contents and the target's are compared with the real daemon's, for jobs
that succeed, fail, are cancelled, and for images that are left as by a crash.
"""

import hashlib
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import Both, Daemon, image

CLUSTER = 65536
SIZE = 32 * CLUSTER
SYNCS = ("full", "top", "none", "incremental", "bitmap")
MODES = (None, "on-success", "never", "always")
BAD = 20 * CLUSTER  # where the target cannot be written, if it is to fail


def prepare(folder: Path) -> None:
    image("create", "-f", "raw", "base.raw", str(SIZE), cwd=folder)
    (folder / "base.raw").write_bytes(b"\x01" * SIZE)


def begin(daemon: Daemon, name: str) -> None:
    """Open a disk with a bitmap, some of which is dirty, and a target of ones' complements."""
    below = ["-b", "base.raw", "-F", "raw"]
    image("create", "-f", "qcow2", *below, f"{name}.qcow2", cwd=daemon.folder)
    (daemon.folder / f"{name}.raw").write_bytes(b"\xff" * SIZE)
    image("bitmap", "--add", f"{name}.qcow2", "b", cwd=daemon.folder)
    open_disk(daemon, name)
    for cluster in (3, 4, 18, 20, 25, 31):
        daemon.write("disk", cluster * CLUSTER, 512, 2)
    rule = {"event": "none", "iotype": "write", "sector": BAD // 512}
    target = {"driver": "file", "filename": f"{name}.raw"}
    if "fails" in name:
        target = {"driver": "blkdebug", "image": target, "inject-error": [rule]}  # type: ignore[dict-item]
    daemon("blockdev-add", {"driver": "raw", "node-name": "target", "file": target})


def open_disk(daemon: Daemon, name: str) -> None:
    file = {"driver": "file", "filename": f"{name}.qcow2"}
    daemon("blockdev-add", {"driver": "qcow2", "node-name": "disk", "file": file})


def state(daemon: Daemon, node: str = "disk") -> None:
    """Take note of the bitmaps' states and contents."""
    recording, daemon.recording = daemon.recording, False
    nodes = daemon("query-named-block-nodes", flat=True)
    daemon.recording = recording
    (disk,) = (each for each in nodes if each["node-name"] == node)
    daemon.transcript.append(("reply", disk.get("dirty-bitmaps")))
    daemon("x-debug-block-dirty-bitmap-sha256", node=node, name="b")


def start(daemon: Daemon, sync: str, mode: str | None, **more: Any) -> bool:
    """Start a backup with one worker; tell whether QEMU would."""
    options = {"bitmap-mode": mode} if mode else {}
    reply = daemon.execute(
        "blockdev-backup",
        {"job-id": "job", "device": "disk", "target": "target", "sync": sync, "bitmap": "b"}
        | {"filter-node-name": "filter", "x-perf": {"max-workers": 1, "max-chunk": CLUSTER}}
        | {"auto-dismiss": False}
        | options
        | more,
    )
    return "return" in reply


def end(daemon: Daemon, name: str) -> None:
    """Let go of all; take note of what was copied, and of what is stored."""
    daemon("job-dismiss", id="job")
    state(daemon)
    daemon("blockdev-del", node_name="disk")
    daemon("blockdev-del", node_name="target")
    note_target(daemon, name)
    open_disk(daemon, name)
    state(daemon)
    daemon("blockdev-del", node_name="disk")
    assert "No errors" in image("check", f"{name}.qcow2", cwd=daemon.folder)


def note_target(daemon: Daemon, name: str) -> None:
    data = (daemon.folder / f"{name}.raw").read_bytes()
    clusters = [data[at : at + CLUSTER] for at in range(0, SIZE, CLUSTER)]
    digests = [hashlib.sha256(cluster).hexdigest()[:8] for cluster in clusters]
    daemon.transcript.append(("reply", digests))


def succeed(daemon: Daemon, name: str) -> None:
    daemon.job_until("job", "pending")
    daemon.write("filter", 4 * CLUSTER, CLUSTER, 3)
    daemon.write("filter", 10 * CLUSTER + 100, 100, 3)
    state(daemon)
    daemon("job-finalize", id="job")
    end(daemon, name)


def cancel(daemon: Daemon, name: str) -> None:
    daemon.job_reaches("job", CLUSTER)
    daemon.write("filter", 4 * CLUSTER, CLUSTER, 3)
    daemon.write("filter", 10 * CLUSTER + 100, 100, 3)
    state(daemon)
    daemon("job-cancel", id="job")
    daemon.job_until("job", "concluded")
    end(daemon, name)


def cancel_when_done(daemon: Daemon, name: str) -> None:
    daemon.job_until("job", "pending")
    daemon.write("filter", 10 * CLUSTER, CLUSTER, 3)
    state(daemon)
    daemon("job-cancel", id="job")
    daemon.job_until("job", "concluded")
    end(daemon, name)


def fail(daemon: Daemon, name: str) -> None:
    daemon.job_until("job", "concluded")
    daemon("query-jobs")
    daemon.write("disk", 10 * CLUSTER, CLUSTER, 3)
    end(daemon, name)


def crash(daemon: Daemon, name: str) -> None:
    """The machine stops while the job is at work: the image is seen as it is on disk."""
    daemon.job_until("job", "pending")
    state(daemon)
    shutil.copyfile(daemon.folder / f"{name}.qcow2", daemon.folder / "crashed.qcow2")
    daemon("job-finalize", id="job")
    daemon.job_until("job", "concluded")
    end(daemon, name)
    open_disk(daemon, "crashed")
    state(daemon)
    start(daemon, "bitmap", "always")
    daemon("block-dirty-bitmap-remove", node="disk", name="b")
    daemon("blockdev-del", node_name="disk")


OUTCOMES: dict[str, tuple[Callable[[Daemon, str], None], dict[str, Any]]] = {
    "succeeds": (succeed, {"auto-finalize": False}),
    "cancelled": (cancel, {"speed": 1}),
    "cancelled-at-the-end": (cancel_when_done, {"auto-finalize": False}),
    "fails": (fail, {}),
    "crashes": (crash, {"auto-finalize": False}),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("sync", ["full", "top", "bitmap", "incremental"])
def test_the_bitmap_is_left_as_by_qemu(both: Both, outcome: str, sync: str) -> None:
    go_on, options = OUTCOMES[outcome]

    def script(daemon: Daemon) -> None:
        for mode in MODES:
            name = f"{sync}-{mode}-{outcome}"
            begin(daemon, name)
            if start(daemon, sync, mode, **options):
                go_on(daemon, name)
            else:
                state(daemon)
                daemon("blockdev-del", node_name="disk")
                daemon("blockdev-del", node_name="target")

    both(script, prepare=prepare, racing=True)


def test_each_invalid_pairing_is_refused(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        begin(daemon, "disk")
        for sync, mode, bitmap in itertools.product(SYNCS, MODES, ("absent", "b", None)):
            options = {"bitmap": bitmap} if bitmap else {}
            options |= {"bitmap-mode": mode} if mode else {}
            reply = daemon.execute(
                "blockdev-backup",
                {"job-id": "job", "device": "disk", "target": "target", "sync": sync, "speed": 1}
                | options,
            )
            if "return" in reply:
                daemon("block-job-cancel", {"device": "job", "force": True})
                daemon.job_until("job", "null")
        state(daemon)
        spoken = [said for said in daemon.transcript if said[0] != "event"]
        daemon.transcript[:] = spoken  # how far a job came by chance is of no interest

    both(script, prepare=prepare, racing=True)


def test_a_busy_bitmap_is_nobody_elses(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        begin(daemon, "disk")
        daemon("block-dirty-bitmap-add", node="disk", name="other")
        start(daemon, "bitmap", "always", speed=1)
        for command in ("clear", "enable", "disable", "remove"):
            daemon.execute(f"block-dirty-bitmap-{command}", node="disk", name="b")
        for target, source in (("b", "other"), ("other", "b")):
            merge = {"node": "disk", "target": target, "bitmaps": [source]}
            daemon.execute("block-dirty-bitmap-merge", merge)
        for sync, mode in itertools.product(SYNCS, MODES):
            start(daemon, sync, mode, **{"job-id": "second"})
        daemon.execute("block-dirty-bitmap-add", node="disk", name="b")
        daemon.execute("block_resize", node_name="disk", size=SIZE * 2)
        state(daemon)
        daemon("job-cancel", id="job")
        daemon.job_until("job", "concluded")
        state(daemon)
        daemon("job-dismiss", id="job")

    both(script, prepare=prepare, racing=True)
