"""QEMU's -compat: what clients should not use any more is refused, hidden, or the program's end."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import BlockemuMachine, Both, Daemon, Died, Machine

DISK = {"driver": "null-co", "node-name": "disk", "size": 1 << 20, "read-zeroes": True}
UNIX = {"type": "unix", "path": "no.sock"}
BACKUP = {"device": "no", "target": "no", "sync": "full"}
USES: list[tuple[str, Any]] = [
    ("drive-backup", BACKUP),
    ("transaction", {"actions": [{"type": "drive-backup", "data": BACKUP}]}),
    ("transaction", {"actions": [{"type": "blockdev-backup", "data": BACKUP}]}),
    ("blockdev-backup", BACKUP | {"x-perf": {"max-workers": 1}}),
    ("nbd-server-add", {"device": "no"}),
    ("nbd-server-remove", {"name": "no"}),
    ("block-commit", {"device": "disk", "top": "no"}),
    ("block-commit", {"device": "disk", "base": "no", "top-node": "no"}),
    ("block_set_io_throttle", {"device": "no", "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0,
                               "iops_rd": 0, "iops_wr": 0}),
    ("eject", {"device": "no"}),
    ("eject", {"id": "no"}),
    ("blockdev-change-medium", {"device": "no", "filename": "no"}),
    ("x-debug-query-block-graph", None),
    ("x-debug-block-dirty-bitmap-sha256", {"node": "disk", "name": "no"}),
    ("x-blockdev-amend", {"job-id": "j", "node-name": "no", "options": {"driver": "qcow2"}}),
    ("blockdev-add", {"driver": "nbd", "node-name": "n", "server": UNIX, "x-dirty-bitmap": "b"}),
    ("blockdev-add", {"driver": "file", "node-name": "n", "filename": "no",
                      "x-check-cache-dropped": True}),
    ("object-add", {"qom-type": "throttle-group", "id": "t", "x-iops-total": 5}),
    ("query-block", None),
    ("blockdev-del", {"node-name": "disk"}),
]  # fmt: skip
POLICIES = [
    "deprecated-input=reject",
    "unstable-input=reject",
    "deprecated-input=reject,unstable-input=reject,deprecated-output=hide,unstable-output=hide",
    "deprecated-output=hide",
    "unstable-output=hide",
    "deprecated-input=accept,unstable-input=accept",
]


@pytest.mark.parametrize("policy", POLICIES)
def test_what_a_policy_forbids_is_refused_as_by_qemu(both: Both, policy: str) -> None:
    def script(daemon: Daemon) -> None:
        daemon("blockdev-add", DISK)
        for command, arguments in USES:
            daemon.execute(command, arguments)

    both(script, "-compat", policy, oracle=Machine, ours=BlockemuMachine)


@pytest.mark.parametrize(
    ("policy", "command", "arguments"),
    [
        ("deprecated-input=crash", "nbd-server-remove", {"name": "no"}),
        ("deprecated-input=crash", "eject", {"device": "no"}),
        ("unstable-input=crash", "x-debug-query-block-graph", None),
        ("unstable-input=crash", "blockdev-backup", BACKUP | {"x-perf": {}}),
    ],
)
@pytest.mark.parametrize("kind", [Machine, BlockemuMachine])
def test_what_a_policy_forbids_on_pain_of_death_is_the_end(
    tmp_path: Path, kind: type[Daemon], policy: str, command: str, arguments: Any
) -> None:
    with kind(tmp_path, "-compat", policy) as daemon:
        with suppress(ConnectionError), pytest.raises((Died, ConnectionError)):
            daemon.execute(command, arguments)
        assert daemon.process.wait(30) == -6  # SIGABRT
