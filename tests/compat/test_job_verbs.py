"""Every command that a job can be given, in every state that clients see, for every kind of job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from compat.daemon import Both, Daemon
from compat.job_kinds import KINDS, MIB, SIZE, Kind, fresh, pristine

VERBS: list[tuple[str, dict[str, Any]]] = [
    ("job-pause", {}),
    ("job-resume", {}),
    ("job-complete", {}),
    ("job-finalize", {}),
    ("job-dismiss", {}),
    ("job-cancel", {}),
    ("block-job-pause", {}),
    ("block-job-resume", {}),
    ("block-job-complete", {}),
    ("block-job-finalize", {}),
    ("block-job-dismiss", {}),
    ("block-job-cancel", {}),
    ("block-job-cancel", {"force": True}),
    ("block-job-set-speed", {"speed": 1}),
]
ENDS = {"cancel", "complete"}
# How far a job gets before the lowest speed makes it wait, and what it takes for that.
FIRST = {"backup": MIB, "drive-backup": MIB, "commit": MIB // 2, "stream": MIB // 2}
SMALL = {"mirror", "mirror-blocking", "drive-mirror"}
# And how far it gets when it is resumed then.
SECOND = {"commit": MIB, "stream": MIB} | dict.fromkeys(SMALL, 131072)
READY = {"mirror", "mirror-blocking", "drive-mirror", "active-commit"}


def held(daemon: Daemon, kind: Kind, **more: Any) -> None:
    """Begin a job that soon waits for its time slice."""
    if kind.name in SMALL:
        more["buf_size"] = 65536
    kind.start(daemon, "j", speed=1, **more)
    reached = 65536 if kind.name in SMALL else FIRST.get(kind.name, SIZE)
    daemon.job_reaches("j", reached)


def running(daemon: Daemon, kind: Kind, **more: Any) -> None:
    held(daemon, kind, **more)


def paused(daemon: Daemon, kind: Kind) -> None:
    held(daemon, kind)
    daemon.pause("job-pause", id="j")


def ready(daemon: Daemon, kind: Kind, **more: Any) -> None:
    kind.start(daemon, "j", **more)
    daemon.job_until("j", "ready")


def standby(daemon: Daemon, kind: Kind) -> None:
    ready(daemon, kind)
    daemon("job-pause", id="j")
    daemon.job_until("j", "standby")


def worked(daemon: Daemon, kind: Kind, **more: Any) -> None:
    """Begin a job and let it do its work."""
    kind.start(daemon, "j", **more)
    if kind.name in READY:
        daemon.job_until("j", "ready")
        daemon("job-complete", id="j")


def pending(daemon: Daemon, kind: Kind) -> None:
    worked(daemon, kind, auto_finalize=False)
    daemon.job_until("j", "pending")


def concluded(daemon: Daemon, kind: Kind) -> None:
    worked(daemon, kind, auto_dismiss=False)
    daemon.job_until("j", "concluded")


def waiting(daemon: Daemon, kind: Kind) -> None:
    """Begin two jobs that end together; the one is done, the other waits for its time slice."""
    for name in ("base", "target"):
        options = {"driver": "null-co", "size": SIZE, "read-zeroes": True}
        daemon("blockdev-add", options | {"node-name": f"other-{name}"})
    perf = {"max-workers": 1, "max-chunk": MIB}
    other = {"job-id": "k", "device": "other-base", "target": "other-target", "speed": 1}
    mine = {"job-id": "j"} | dict(kind.arguments)
    actions = [
        {"type": kind.command, "data": mine},
        {"type": "blockdev-backup", "data": other | {"sync": "full", "x-perf": perf}},
    ]
    daemon("transaction", {"actions": actions, "properties": {"completion-mode": "grouped"}})
    daemon.job_until("j", "waiting")
    daemon.job_reaches("k", MIB)


STATES: dict[str, Callable[..., None]] = {
    "running": running,
    "paused": paused,
    "ready": ready,
    "standby": standby,
    "waiting": waiting,
    "pending": pending,
    "concluded": concluded,
}
ONLY = {"ready": READY, "standby": READY, "waiting": {"backup", "drive-backup"}}
CASES = [
    pytest.param(kind, state, id=f"{kind}-{state}")
    for kind in KINDS
    for state in STATES
    if kind.name in ONLY.get(state, {kind.name})
]


@dataclass
class Try:
    """One command in one state, and what comes of it."""

    daemon: Daemon
    kind: Kind
    state: str
    verb: str

    def give(self, arguments: dict[str, Any]) -> None:
        """Give the command; go on until the job has come to rest."""
        key = "device" if self.verb.startswith("block-job-") else "id"
        self.daemon.events.clear()
        reply = self.daemon.execute(self.verb, {key: "j"} | arguments)
        done = self.verb.removeprefix("block-").removeprefix("job-") if "return" in reply else ""
        if self.state in ("pending", "concluded", "waiting"):
            self.daemon("query-jobs")
        elif done in ENDS and not (done == "complete" and self.state == "standby"):
            self.daemon.job_until("j", "null")
        elif done == "pause":
            self.daemon.job_until("j", "standby" if self.state == "ready" else "paused")
        elif done == "resume":
            self.resumed()

    def resumed(self) -> None:
        """Wait until the job has no more to do for now."""
        if self.kind.name in READY - SMALL or self.state == "standby":
            self.daemon.job_until("j", "ready")
        else:
            self.daemon.job_until("j", "running")
            self.daemon.job_reaches("j", SECOND.get(self.kind.name, 0))

    def tell(self) -> None:
        """Put on record what there is; a job at work is busy or not, as it happens."""
        for job in self.daemon("query-jobs"):
            assert job["id"] in ("j", "k")

    def finish(self) -> None:
        """End what is left."""
        for job in self._jobs():
            if job["id"] == "k" and job["status"] == "running":
                self.daemon("block-job-cancel", device="k", force=True)
                self.daemon.job_until("k", "null")
        for job in self._jobs():
            if job["status"] == "pending":
                self.daemon("job-finalize", id="j")
            elif job["status"] == "concluded":
                self.daemon("job-dismiss", id="j")
            else:
                self.daemon("block-job-cancel", device="j", force=True)
                self.daemon.job_until("j", "null")
        assert not self._jobs()

    def _jobs(self) -> list[dict[str, Any]]:
        recording, self.daemon.recording = self.daemon.recording, False
        try:
            return list(self.daemon("query-jobs"))
        finally:
            self.daemon.recording = recording


@pytest.mark.parametrize(("kind", "state"), CASES)
def test_each_command_in_each_state(both: Both, kind: Kind, state: str) -> None:
    def script(daemon: Daemon) -> None:
        for verb, arguments in VERBS:
            fresh(daemon)
            kind.open(daemon, [], [])
            STATES[state](daemon, kind)
            attempt = Try(daemon, kind, state, verb)
            attempt.give(arguments)
            attempt.tell()
            attempt.finish()
            daemon("x-debug-query-block-graph")
            for node in (*kind.close, "other-base", "other-target"):
                daemon.execute("blockdev-del", node_name=node)

    both(script, prepare=pristine, racing=True)
