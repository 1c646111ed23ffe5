"""A job that is over but not dismissed: what it still holds, and what may be done meanwhile."""

from __future__ import annotations

import pytest
from compat.daemon import Both, Daemon
from compat.job_kinds import KINDS, Kind, fresh, pristine
from compat.test_job_verbs import READY, concluded, ready, running


def cancelled(daemon: Daemon, kind: Kind) -> None:
    """Begin a job and cancel it."""
    start = ready if kind.name in READY else running
    start(daemon, kind, auto_dismiss=False)
    daemon("block-job-cancel", device="j", force=True)
    daemon.job_until("j", "concluded")


@pytest.mark.parametrize("end", [concluded, cancelled])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_a_job_holds_until_it_is_dismissed(both: Both, kind: Kind, end) -> None:
    def script(daemon: Daemon) -> None:
        fresh(daemon)
        kind.open(daemon, [], [])
        end(daemon, kind)
        daemon("x-debug-query-block-graph")
        for node in kind.close:
            daemon.execute("block_resize", node_name=node, size=8 << 20)
            daemon.execute("blockdev-snapshot-sync", {"node-name": node, "snapshot-file": "o"})
            daemon.execute("blockdev-del", node_name=node)
        daemon("x-debug-query-block-graph")
        daemon("job-dismiss", id="j")
        daemon("x-debug-query-block-graph")
        for node in kind.close:
            daemon.execute("blockdev-del", node_name=node)

    both(script, prepare=pristine, racing=True)
