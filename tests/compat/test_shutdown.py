"""How a daemon ends: by quit or by signal, idle or at work, nothing is left half written."""

import json
import signal
from pathlib import Path

import pytest
from compat import transcript
from compat.daemon import BlockemuMachine, Both, Daemon, Machine, StorageDaemon, image


def lazy_image(folder: Path) -> None:
    image("create", "-f", "qcow2", "-o", "lazy_refcounts=on", "disk.qcow2", "4M", cwd=folder)
    image("create", "-f", "qcow2", "target.qcow2", "4M", cwd=folder)


def open_both(daemon: Daemon) -> None:
    for name in ("disk", "target"):
        file = {"driver": "file", "filename": f"{name}.qcow2"}
        daemon("blockdev-add", {"driver": "qcow2", "node-name": name, "file": file})


def write_and_wait(daemon: Daemon) -> None:
    open_both(daemon)
    daemon.write("disk", 0, 1 << 20, 1)


def with_running_job(daemon: Daemon) -> None:
    open_both(daemon)
    daemon.write("disk", 0, 4 << 20, 1)
    daemon("blockdev-backup", job_id="j", device="disk", target="target", sync="full", speed=1)
    daemon.job_reaches("j", 1 << 20)  # the first piece; the next would come in years


def with_pending_job(daemon: Daemon) -> None:
    open_both(daemon)
    daemon(
        "blockdev-backup", job_id="j", device="disk", target="target", sync="full",
        auto_finalize=False, auto_dismiss=False,
    )  # fmt: skip
    daemon.wait("BLOCK_JOB_PENDING")


def with_concluded_job(daemon: Daemon) -> None:
    open_both(daemon)
    daemon(
        "blockdev-backup", job_id="j", device="disk", target="target", sync="full",
        auto_dismiss=False,
    )  # fmt: skip
    daemon.job_until("j", "concluded")


WORK = [open_both, write_and_wait, with_running_job, with_pending_job, with_concluded_job]


def all_clean(folder: Path) -> None:
    for name in ("disk", "target"):
        assert "No errors" in image("check", f"{name}.qcow2", cwd=folder)
        assert '"dirty-flag": false' in image("info", "--output=json", f"{name}.qcow2", cwd=folder)


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_quit_ends_jobs_and_leaves_clean_images(both: Both, work) -> None:
    for daemon in both(work, prepare=lazy_image, racing=True):
        all_clean(daemon.folder)


@pytest.mark.parametrize(("machine", "hmp"), [(False, False), (True, False), (True, True)])
def test_the_reply_to_quit_comes_last(both: Both, machine: bool, hmp: bool) -> None:
    said: list[list[str]] = []

    def script(daemon: Daemon) -> None:
        with_running_job(daemon)
        daemon.transcript.clear()
        if hmp:
            line = {"command-line": "quit"}
            request = {"execute": "human-monitor-command", "arguments": line}
        else:
            request = {"execute": "quit"}
        daemon.socket.sendall(json.dumps(request).encode())
        assert daemon.ended() == 0
        said.append(transcript.lines(daemon.transcript))

    kinds = {"oracle": Machine, "ours": BlockemuMachine} if machine else {}
    both(script, prepare=lazy_image, racing=True, **kinds)
    assert said[0] == said[1]
    assert said[0][-1].startswith("<")


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_as_quit_does(both: Both, work, number: signal.Signals) -> None:
    def script(daemon: Daemon) -> None:
        work(daemon)
        daemon.process.send_signal(number)
        daemon.ended()
        all_clean(daemon.folder)

    both(script, prepare=lazy_image, racing=True)


def test_the_pidfile_holds_the_pid_and_goes_with_the_daemon(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        pidfile = daemon.folder / "pid"
        assert pidfile.read_text() == f"{daemon.process.pid}\n"
        assert daemon.stop() == 0
        assert not pidfile.exists()

    both(script, "--pidfile", "pid", oracle=StorageDaemon)
