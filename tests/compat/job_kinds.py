"""The kinds of job as a table: the disks each needs, how it begins, and which node fails where.

All disks are four MiB, written to throughout, so that each request of a job is of known bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compat.daemon import Daemon, image
from compat.test_mirror import fill

MIB = 1 << 20
SIZE = 4 * MIB
Rules = list[dict[str, Any]]


def pristine(folder: Path) -> None:
    """Make the images that each job starts from; ``fresh`` copies them."""
    image("create", "-f", "raw", "base.raw", str(SIZE), cwd=folder)
    (folder / "base.raw").write_bytes(b"\1" * SIZE)
    image("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "mid.qcow2", cwd=folder)
    fill(folder, "mid.qcow2", f"write -q -P 2 0 {SIZE}")
    image("create", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2", cwd=folder)
    image("create", "-f", "raw", "target.raw", str(SIZE), cwd=folder)
    told = json.loads(image("map", "--output=json", "mid.qcow2", cwd=folder))
    assert len(told) == 1, "one run, so that places in the file are easily told"
    (folder / "mid.data").write_text(str(told[0]["offset"]))
    (folder / "pristine").mkdir()
    for path in list(folder.iterdir()):
        if path.is_file():
            path.rename(folder / "pristine" / path.name)


def fresh(daemon: Daemon) -> None:
    """Begin again with the images that ``pristine`` made."""
    for path in (daemon.folder / "pristine").iterdir():
        shutil.copy(path, daemon.folder)


def mid_data(daemon: Daemon) -> int:
    """Return where in its file the middle image has its data."""
    return int((daemon.folder / "mid.data").read_text())


def add(daemon: Daemon, name: str, driver: str, file: str, rules: Rules, **more: Any) -> None:
    """Open an image, with a blkdebug below that has *rules*."""
    below: dict[str, Any] = {"driver": "file", "filename": file}
    if rules:
        below = {"driver": "blkdebug", "image": below, "inject-error": rules}
    options = {key.replace("_", "-"): value for key, value in more.items()}
    daemon("blockdev-add", {"driver": driver, "node-name": name, "file": below} | options)


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    ``open``: make its nodes; the rules are for the side that reads and the side that is written.
    ``data``: where the disk's first byte lies in the file that is read.
    ``policies``: its arguments for errors of reading and of writing.
    ``result``: the file that holds what the job made, and its format.
    """

    name: str
    command: str
    arguments: Mapping[str, Any]
    open: Callable[[Daemon, Rules, Rules], None]
    result: tuple[str, str]
    data: Callable[[Daemon], int] = lambda daemon: 0
    policies: tuple[str, str] = ("on-source-error", "on-target-error")
    close: tuple[str, ...] = ("source", "target")

    def __str__(self) -> str:
        return self.name

    def start(self, daemon: Daemon, job_id: str, **more: Any) -> None:
        """Begin the job."""
        arguments = dict(self.arguments) | {key.replace("_", "-"): v for key, v in more.items()}
        daemon(self.command, {"job-id": job_id} | arguments)

    def digest(self, daemon: Daemon) -> str:
        """Return a digest of the disk that the job made."""
        name, kind = self.result
        path = daemon.folder / name
        if kind != "raw":
            image("convert", "-f", kind, "-O", "raw", name, "read", cwd=daemon.folder)
            path = daemon.folder / "read"
        return hashlib.sha256(path.read_bytes()).hexdigest()


def _copy(daemon: Daemon, reads: Rules, writes: Rules) -> None:
    add(daemon, "source", "raw", "base.raw", reads)
    add(daemon, "target", "raw", "target.raw", writes)


def _copy_to_file(daemon: Daemon, reads: Rules, writes: Rules) -> None:
    assert not writes, "the target of a drive-* command has no rules"
    add(daemon, "source", "raw", "base.raw", reads)


def _chain(daemon: Daemon, reads: Rules, writes: Rules) -> None:
    add(daemon, "base", "raw", "base.raw", writes)
    add(daemon, "mid", "qcow2", "mid.qcow2", reads, backing="base")
    add(daemon, "top", "qcow2", "top.qcow2", [], backing="mid")


def _two(daemon: Daemon, reads: Rules, writes: Rules) -> None:
    add(daemon, "base", "raw", "base.raw", writes)
    add(daemon, "mid", "qcow2", "mid.qcow2", reads, backing="base")


def _stream(daemon: Daemon, reads: Rules, writes: Rules) -> None:
    add(daemon, "base", "raw", "base.raw", [])
    add(daemon, "mid", "qcow2", "mid.qcow2", reads, backing="base", read_only=True)
    add(daemon, "top", "qcow2", "top.qcow2", writes, backing="mid")


_COPY = {"device": "source", "target": "target", "sync": "full"}
_TO_FILE = _COPY | {"target": "target.raw", "format": "raw", "mode": "existing"}
_WORKER = {"x-perf": {"max-workers": 1, "max-chunk": 1 << 20}}  # one request after the other
_MADE = ("target.raw", "raw")
_ONE = ("on-error", "on-error")

KINDS = [
    Kind("backup", "blockdev-backup", _COPY | _WORKER, _copy, _MADE),
    Kind("drive-backup", "drive-backup", _TO_FILE | _WORKER, _copy_to_file, _MADE, close=("source",)),
    Kind("mirror", "blockdev-mirror", _COPY, _copy, _MADE),
    Kind("mirror-blocking", "blockdev-mirror", _COPY | {"copy-mode": "write-blocking"}, _copy, _MADE),
    Kind("drive-mirror", "drive-mirror", _TO_FILE, _copy_to_file, _MADE, close=("source",)),
    Kind(
        "commit", "block-commit", {"device": "top", "top-node": "mid", "base-node": "base"}, _chain,
        ("base.raw", "raw"), mid_data, _ONE, ("top", "mid", "base"),
    ),
    Kind(
        "active-commit", "block-commit", {"device": "mid"}, _two,
        ("base.raw", "raw"), mid_data, _ONE, ("mid", "base"),
    ),
    Kind(
        "stream", "block-stream", {"device": "top"}, _stream,
        ("top.qcow2", "qcow2"), mid_data, _ONE, ("top", "mid", "base"),
    ),
]  # fmt: skip
