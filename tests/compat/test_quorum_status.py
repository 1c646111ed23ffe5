"""What NBD clients are told of a quorum's blocks: zero only where all children say so."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from compat.daemon import DEADLINE, Both, Daemon, image

SIZE, CLUSTER = 4 << 20, 65536
RUNS = {"a": [(0, 3), (10, 4)], "b": [(1, 5), (40, 1)], "c": [(12, 10), (63, 1)]}


def prepare(folder: Path) -> None:
    """Make children that hold the same zeroes, here written and there not."""
    for name, runs in RUNS.items():
        image("create", "-q", "-f", "qcow2", f"{name}.qcow2", str(SIZE), cwd=folder)
        writes = [f"write -q -P 0 {at * CLUSTER} {n * CLUSTER}" for at, n in runs]
        commands = [part for write in writes for part in ("-c", write)]
        subprocess.run(["qemu-io", *commands, f"{name}.qcow2"], cwd=folder, check=True)


@pytest.mark.parametrize("pattern", ["quorum", "fifo"])
def test_zero_is_where_all_say_so(both: Both, pattern: str) -> None:
    def script(daemon: Daemon) -> None:
        children = []
        for name in RUNS:
            file = {"driver": "file", "filename": str(daemon.folder / f"{name}.qcow2")}
            children.append({"driver": "qcow2", "node-name": name, "file": file})
        quorum = {"driver": "quorum", "node-name": "q", "vote-threshold": 2}
        daemon("blockdev-add", quorum | {"children": children, "read-pattern": pattern})
        path = str(daemon.folder / "nbd.sock")
        daemon("nbd-server-start", {"addr": {"type": "unix", "data": {"path": path}}})
        daemon("block-export-add", {"type": "nbd", "id": "q", "node-name": "q", "writable": True})
        told = subprocess.run(
            ["nbdinfo", "--json", "--map", f"nbd+unix:///q?socket={path}"],
            capture_output=True, text=True, timeout=DEADLINE, check=True,
        )  # fmt: skip
        runs = json.loads(told.stdout)
        daemon.note(json.dumps(runs))
        assert len(runs) > 6
        assert {run["type"] for run in runs} == {0, 3}

    both(script, prepare=prepare)
