"""Commit and stream: images go out of a chain, and the disk reads as before."""

import pytest
from compat.daemon import Both, Daemon, image
from compat.test_mirror import SIZE, chain, open_image

READ_ERROR = [{"event": "read_aio", "errno": 5, "once": True}]


def names(daemon: Daemon) -> None:
    daemon("x-debug-query-block-graph")
    daemon("query-jobs")


def disk(daemon: Daemon, name: str) -> None:
    """The disk reads as it did, and every image that is left is clean."""
    image("create", "-f", "qcow2", "want.qcow2", str(SIZE), cwd=daemon.folder)
    assert "No errors" in image("check", f"{name}.qcow2", cwd=daemon.folder)


def test_the_middle_is_merged_into_the_base(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_image(daemon, "top")
        path = str(daemon.folder / "mid.qcow2")
        daemon("block-commit", job_id="j", device="top", top=path, filter_node_name="f", speed=1)
        daemon("x-debug-query-block-graph")
        daemon("block-job-set-speed", device="j", speed=0)
        daemon.job_until("j", "null")
        names(daemon)
        daemon.verify("top", 2 << 20, 1 << 20, 2)
        daemon.verify("top", 3 << 20, 65536, 3)
        daemon.verify("top", 0, 2 << 20, 1)

    for daemon in both(script, prepare=chain):
        told = image("info", "--output=json", "top.qcow2", cwd=daemon.folder)
        assert '"backing-filename": "' in told
        assert "base.qcow2" in told
        disk(daemon, "top")


@pytest.mark.parametrize("base", ["base", "mid"])
def test_the_active_image_is_merged_while_it_is_written_to(both: Both, base: str) -> None:
    def script(daemon: Daemon) -> None:
        open_image(daemon, "top")
        path = str(daemon.folder / f"{base}.qcow2")
        daemon("block-commit", job_id="j", device="top", base=path, filter_node_name="f")
        daemon.job_until("j", "ready")
        daemon("query-block-jobs")
        names(daemon)
        daemon.write("f", 0, 65536, 9)
        daemon("job-complete", id="j")
        daemon.job_until("j", "null")
        names(daemon)

    for daemon in both(script, prepare=chain, racing=True):
        disk(daemon, base)


def test_a_commit_is_cancelled(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_image(daemon, "top")
        path = str(daemon.folder / "mid.qcow2")
        daemon("block-commit", job_id="j", device="top", top=path, speed=1)
        daemon.job_reaches("j", 5 << 19)
        daemon("query-block-jobs")
        daemon("block-job-cancel", device="j")
        daemon.job_until("j", "null")
        names(daemon)

    both(script, prepare=chain)


@pytest.mark.parametrize("policy", ["report", "stop", "ignore"])
def test_a_commits_read_fails(both: Both, policy: str) -> None:
    def script(daemon: Daemon) -> None:
        file = {"driver": "file", "filename": str(daemon.folder / "mid.qcow2")}
        file = {"driver": "blkdebug", "image": file, "inject-error": READ_ERROR}
        daemon("blockdev-add", {"driver": "qcow2", "node-name": "mid", "file": file})
        open_image(daemon, "top", backing="mid")
        daemon("block-commit", job_id="j", device="top", top_node="mid", on_error=policy)
        if policy == "stop":
            daemon.job_until("j", "paused")
            daemon("query-block-jobs")
            daemon("block-job-resume", device="j")
        daemon.job_until("j", "null")
        names(daemon)

    both(script, prepare=chain)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"base": "base.qcow2"},
        {"base": "base.qcow2", "backing_file": "other.qcow2"},
        {"bottom": "mid"},
        {"base_node": "base"},
    ],
    ids=lambda options: "-".join(options) or "all",
)
def test_streams(both: Both, options: dict[str, str]) -> None:
    def script(daemon: Daemon) -> None:
        open_image(daemon, "base", read_only=True)
        open_image(daemon, "mid", read_only=True, backing="base")
        open_image(daemon, "top", backing="mid")
        more = dict(options)
        if "base" in more:
            more["base"] = str(daemon.folder / more["base"])
        daemon("block-stream", job_id="j", device="top", filter_node_name="f", speed=1, **more)
        daemon("x-debug-query-block-graph")
        daemon("block-job-set-speed", device="j", speed=0)
        daemon.job_until("j", "null")
        names(daemon)
        daemon.verify("top", 2 << 20, 1 << 20, 2)
        daemon.verify("top", 3 << 20, 65536, 3)
        daemon.verify("top", 0, 2 << 20, 1)

    for daemon in both(script, prepare=chain):
        if "backing_file" not in options:
            assert "No errors" in image("check", "top.qcow2", cwd=daemon.folder)
        told = image("info", "top.qcow2", cwd=daemon.folder)
        assert ("other.qcow2" in told) is ("backing_file" in options)


def test_a_stream_is_cancelled(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_image(daemon, "top")
        daemon("block-stream", job_id="j", device="top", speed=1)
        daemon.job_reaches("j", 512 << 10)
        daemon("query-block-jobs")
        daemon("block-job-cancel", device="j")
        daemon.job_until("j", "null")
        names(daemon)

    both(script, prepare=chain)


@pytest.mark.parametrize("policy", ["report", "stop", "ignore"])
def test_a_streams_read_fails(both: Both, policy: str) -> None:
    def script(daemon: Daemon) -> None:
        file = {"driver": "file", "filename": str(daemon.folder / "mid.qcow2")}
        file = {"driver": "blkdebug", "image": file, "inject-error": READ_ERROR}
        daemon("blockdev-add", {"driver": "qcow2", "node-name": "mid", "file": file})
        open_image(daemon, "top", backing="mid")
        daemon("block-stream", job_id="j", device="top", on_error=policy)
        if policy == "stop":
            daemon.job_until("j", "paused")
            daemon("query-block-jobs")
            daemon("block-job-resume", device="j")
        daemon.job_until("j", "null")
        names(daemon)

    both(script, prepare=chain)
