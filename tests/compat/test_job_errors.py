"""Jobs of every kind whose first, middle or last request fails, under each policy."""

from __future__ import annotations

from typing import Any

import pytest
from compat.daemon import Both, Daemon
from compat.job_kinds import KINDS, SIZE, Kind, Rules, fresh, pristine

EIO, ENOSPC = 5, 28
PLACES = {"first": 0, "middle": SIZE // 2, "last": SIZE - 512}
POLICIES = [
    ("report", EIO),
    ("ignore", EIO),
    ("stop", EIO),
    ("stop", ENOSPC),
    ("enospc", EIO),
    ("enospc", ENOSPC),
    ("auto", EIO),
    ("auto", ENOSPC),
]
SIDES = ["read", "write"]
CASES = [
    pytest.param(kind, side, id=f"{kind}-{side}")
    for kind in KINDS
    for side in SIDES
    if side == "read" or not kind.command.startswith("drive-")
]


def rules(iotype: str, offset: int, errno: int, *, once: bool = True) -> Rules:
    """Return the rule that makes one request fail."""
    where = {"event": "none", "iotype": iotype, "sector": offset // 512}
    return [where | {"errno": errno, "once": once}]


def attend(daemon: Daemon, job: str) -> int:
    """See a job through: resume it whenever an error stops it, complete it when it is ready.

    Return how many errors it met.
    """
    errors = 0
    while True:
        event, data = following(daemon, job)
        errors += event == "BLOCK_JOB_ERROR"
        if event == "BLOCK_JOB_ERROR" and data["action"] == "stop":
            daemon.job_until(job, "paused")
            daemon("query-block-jobs")
            daemon("query-jobs")
            daemon("job-resume", id=job)
        elif event == "BLOCK_JOB_READY":
            daemon("block-job-complete", device=job)
        elif data.get("status") == "concluded":
            daemon("query-jobs")
            daemon("job-dismiss", id=job)
            return errors


def following(daemon: Daemon, job: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the data of the next event of *job*."""
    while True:
        event = daemon.next_event()
        data = event.get("data", {})
        if job in (data.get("device"), data.get("id")):
            return event["event"], data


@pytest.mark.parametrize(("kind", "side"), CASES)
def test_errors_are_dealt_with_by_the_policy(both: Both, kind: Kind, side: str) -> None:
    def script(daemon: Daemon) -> None:
        for policy, errno in POLICIES:
            for place, offset in PLACES.items():
                fresh(daemon)
                job = f"{policy}-{errno}-{place}"
                read = rules("read", kind.data(daemon) + offset, errno) if side == "read" else []
                at = offset + (kind.data(daemon) if kind.name == "stream" else 0)
                write = rules("write", at, errno) if side == "write" else []
                kind.open(daemon, read, write)
                argument = kind.policies[SIDES.index(side)]
                kind.start(daemon, job, **{argument: policy, "auto-dismiss": False})
                assert attend(daemon, job) == 1, "the rule was not met, or more than once"
                daemon("x-debug-query-block-graph")
                for node in kind.close:
                    daemon.execute("blockdev-del", node_name=node)
                daemon.note(f"{job} made {kind.digest(daemon)}")

    both(script, prepare=pristine, racing=True)
