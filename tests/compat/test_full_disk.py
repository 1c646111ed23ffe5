"""Jobs whose target lies on a file system that is full: real ENOSPC, and room again after a while."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.daemon import Both, Daemon, image
from compat.job_kinds import MIB, SIZE

WORKER = {"max-workers": 1, "max-chunk": MIB}


def mount(*arguments: str) -> bool:
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of two MiB; skip where none can be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=2M", "tmpfs", str(folder)):
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def resize(folder: Path, size: str) -> None:
    assert mount("-o", f"remount,size={size}", str(folder))


def prepare(folder: Path) -> None:
    (folder / "base.raw").write_bytes(b"\1" * SIZE)


@pytest.mark.parametrize("policy", ["report", "stop", "enospc", "auto"])
@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_a_backup_fills_the_disk(both: Both, small: Path, format_: str, policy: str) -> None:
    def script(daemon: Daemon) -> None:
        resize(small, "2M")
        target = small / "target"
        image("create", "-q", "-f", format_, str(target), str(SIZE))
        for name, driver, file in (
            ("source", "raw", daemon.folder / "base.raw"),
            ("target", format_, target),
        ):
            below = {"driver": "file", "filename": str(file)}
            daemon("blockdev-add", {"driver": driver, "node-name": name, "file": below})
        options = {"job-id": "j", "device": "source", "target": "target", "sync": "full"}
        more = {"on-target-error": policy, "auto-dismiss": False, "x-perf": WORKER}
        daemon("blockdev-backup", options | more)
        daemon.wait("BLOCK_JOB_ERROR")
        if policy != "report":
            daemon.job_until("j", "paused")
            daemon("query-block-jobs")
            resize(small, "8M")
            daemon("job-resume", id="j")
        daemon.job_until("j", "concluded")
        daemon("query-jobs")
        daemon("job-dismiss", id="j")
        for name in ("source", "target"):
            daemon("blockdev-del", node_name=name)
        compared = ["compare", "-f", "raw", "-F", format_, str(daemon.folder / "base.raw")]
        if policy != "report":
            assert "identical" in image(*compared, str(target))
        target.unlink()

    both(script, prepare=prepare, racing=True)
