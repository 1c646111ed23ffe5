"""Jobs whose target goes away while they copy: an NBD server that is killed."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import pytest
from compat.daemon import DEADLINE, Both, Daemon
from compat.job_kinds import MIB, SIZE

WORKER = {"max-workers": 1, "max-chunk": MIB}


def prepare(folder: Path) -> None:
    (folder / "base.raw").write_bytes(b"\1" * SIZE)
    (folder / "target.raw").write_bytes(bytes(SIZE))


def serve(folder: Path) -> subprocess.Popen[bytes]:
    """Start a server, and wait until it listens."""
    path = str(folder / "nbd.sock")
    server = subprocess.Popen(["qemu-nbd", "-f", "raw", "-k", path, "-t", folder / "target.raw"])
    deadline = time.monotonic() + DEADLINE
    while True:
        with socket.socket(socket.AF_UNIX) as client:
            if not client.connect_ex(path):
                return server
        assert time.monotonic() < deadline


@pytest.mark.parametrize("policy", ["report", "stop", "enospc"])
@pytest.mark.parametrize("kind", ["backup", "mirror"])
def test_the_server_of_the_target_dies(both: Both, program, kind: str, policy: str) -> None:
    program("qemu-nbd")

    def script(daemon: Daemon) -> None:
        server = serve(daemon.folder)
        try:
            file = {"driver": "file", "filename": "base.raw"}
            daemon("blockdev-add", {"driver": "raw", "node-name": "source", "file": file})
            address = {"type": "unix", "path": str(daemon.folder / "nbd.sock")}
            daemon("blockdev-add", {"driver": "nbd", "node-name": "target", "server": address})
            options = {"job-id": "j", "device": "source", "target": "target", "sync": "full"}
            more = {"x-perf": WORKER} if kind == "backup" else {"buf-size": 65536}
            options |= {"on-target-error": policy, "auto-dismiss": False, "speed": 1}
            daemon(f"blockdev-{kind}", options | more)
            daemon.job_reaches("j", MIB if kind == "backup" else 65536)
        finally:
            server.kill()
            server.wait()
        daemon("block-job-set-speed", device="j", speed=0)
        daemon.wait("BLOCK_JOB_ERROR")
        if policy == "stop":
            daemon.job_until("j", "paused")
            daemon("query-block-jobs")
            daemon("block-job-cancel", device="j", force=True)
        daemon.job_until("j", "concluded")
        daemon("job-dismiss", id="j")
        for name in ("source", "target"):
            daemon("blockdev-del", node_name=name)

    both(script, prepare=prepare, racing=True)
