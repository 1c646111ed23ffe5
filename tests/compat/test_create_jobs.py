"""Jobs that create and amend images: every command in each of their states, and where they fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import Both, Daemon, image
from compat.job_kinds import MIB
from compat.test_job_verbs import VERBS

EIO, ENOSPC = 5, 28
QCOW2 = {"driver": "qcow2", "file": "file", "size": MIB}
LIMITS = {"path": "/objects/group", "property": "limits"}


def create(daemon: Daemon, job: str, **options: Any) -> None:
    more = {key.replace("_", "-"): value for key, value in options.items()}
    daemon("blockdev-create", {"job-id": job, "options": QCOW2 | more})


def slowed(daemon: Daemon) -> None:
    """Begin to create an image where a request a second is done, the first one at once."""
    group = {"qom-type": "throttle-group", "id": "group", "limits": {"iops-total": 1}}
    daemon("object-add", group)
    file = {"driver": "file", "filename": "x"}
    daemon(
        "blockdev-add",
        {"driver": "throttle", "node-name": "file", "throttle-group": "group", "file": file},
    )
    create(daemon, "j")


def hurried(daemon: Daemon) -> None:
    """Let it go on at any speed, to its end."""
    daemon("qom-set", LIMITS | {"value": {"iops-total": 0}})
    daemon.job_until("j", "concluded")
    daemon("query-jobs")
    daemon("job-dismiss", id="j")


def created(daemon: Daemon) -> None:
    """Create an image."""
    daemon("blockdev-add", driver="file", node_name="file", filename="x")
    create(daemon, "j")
    daemon.job_until("j", "concluded")


def amended(daemon: Daemon) -> None:
    """Amend an image by nothing."""
    file = {"driver": "file", "filename": "y"}
    daemon("blockdev-add", {"driver": "qcow2", "node-name": "file", "file": file})
    options = {"job-id": "j", "node-name": "file", "options": {"driver": "qcow2"}}
    daemon("x-blockdev-amend", options)
    daemon.job_until("j", "concluded")


def failed(daemon: Daemon) -> None:
    """Fail to create an image."""
    daemon("blockdev-add", driver="file", node_name="file", filename="x")
    create(daemon, "j", cluster_size=3)
    daemon.job_until("j", "concluded")


def prepare(folder: Path) -> None:
    (folder / "x").touch()
    image("create", "-q", "-f", "qcow2", "y", "1M", cwd=folder)


def give(daemon: Daemon, verb: str, arguments: dict[str, Any]) -> None:
    key = "device" if verb.startswith("block-job-") else "id"
    daemon.execute(verb, {key: "j"} | arguments)
    daemon("query-jobs")
    daemon("query-block-jobs")


def test_each_command_while_an_image_is_created(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        for verb, arguments in VERBS:
            slowed(daemon)
            give(daemon, verb, arguments)
            hurried(daemon)
            daemon("blockdev-del", node_name="file")
            daemon("object-del", id="group")
            daemon.note(image("info", "-f", "qcow2", "x", cwd=daemon.folder))

    both(script, prepare=prepare, racing=True)


@pytest.mark.parametrize("end", [created, amended, failed])
def test_each_command_after_the_end(both: Both, end: Callable[[Daemon], None]) -> None:
    def script(daemon: Daemon) -> None:
        for verb, arguments in VERBS:
            end(daemon)
            give(daemon, verb, arguments)
            daemon.execute("job-dismiss", id="j")
            daemon("blockdev-del", node_name="file")

    both(script, prepare=prepare, racing=True)


@pytest.mark.parametrize("errno", [EIO, ENOSPC])
def test_an_error_fails_the_creation(both: Both, errno: int) -> None:
    """At the header, the tables of reference counts, the first of them, and the L1 table."""

    def script(daemon: Daemon) -> None:
        for cluster in range(4):
            rule = {"event": "none", "iotype": "write", "sector": cluster * 128, "errno": errno}
            options = {
                "driver": "blkdebug",
                "node-name": "file",
                "image": {"driver": "file", "filename": "x"},
                "inject-error": [rule],
            }
            daemon("blockdev-add", options)
            create(daemon, "j")
            daemon.job_until("j", "concluded")
            daemon("query-jobs")
            daemon("job-dismiss", id="j")
            daemon("blockdev-del", node_name="file")

    both(script, prepare=prepare, racing=True)
