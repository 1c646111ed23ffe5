"""Transactions of backups: what is done at one moment, and how the jobs end together."""

import pytest
from compat.daemon import Both, Daemon, image

SIZE = 8 << 20
MIB = 1 << 20


def open_pair(daemon: Daemon, name: str, *, rules: list[dict] | None = None) -> None:
    """Open a disk and, beside it, a target on which some writes may fail."""
    for each in (name, f"{name}-copy"):
        image("create", "-f", "qcow2", f"{each}.qcow2", str(SIZE), cwd=daemon.folder)
        file = {"driver": "file", "filename": str(daemon.folder / f"{each}.qcow2")}
        if rules is not None and each != name:
            file = {"driver": "blkdebug", "image": file, "inject-error": rules}
        daemon("blockdev-add", {"driver": "qcow2", "node-name": each, "file": file})
    daemon.write(name, 0, 2 * MIB, 1)
    daemon("block-dirty-bitmap-add", node=name, name="b")
    daemon.write(name, MIB, 4 * MIB, 2)


def backup(name: str, **more: object) -> dict:
    arguments = {"job-id": name, "device": name, "target": f"{name}-copy", "sync": "incremental"}
    return {"type": "blockdev-backup", "data": arguments | {"bitmap": "b"} | more}


def bitmaps(daemon: Daemon, *names: str) -> None:
    for name in names:
        daemon("x-debug-block-dirty-bitmap-sha256", node=name, name="b")


FAIL = [{"event": "write_aio", "errno": 5, "once": True}]


@pytest.mark.parametrize("mode", ["individual", "grouped"])
def test_one_of_two_jobs_fails(both: Both, mode: str) -> None:
    def script(daemon: Daemon) -> None:
        open_pair(daemon, "good")
        open_pair(daemon, "bad", rules=FAIL)
        daemon(
            "transaction",
            actions=[backup("good", speed=1), backup("bad")],
            properties={"completion-mode": mode},
        )
        daemon.job_until("bad", "null")
        if mode == "individual":
            daemon("query-jobs")
            daemon("block-job-set-speed", device="good", speed=0)
            daemon.job_until("good", "null")
        daemon("query-jobs")
        bitmaps(daemon, "good", "bad")

    both(script, racing=True)


def test_a_group_is_finalized_as_one(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_pair(daemon, "one")
        open_pair(daemon, "two")
        manual = {"auto-finalize": False, "auto-dismiss": False}
        daemon(
            "transaction",
            actions=[backup("one", **manual), backup("two", **manual)],
            properties={"completion-mode": "grouped"},
        )
        daemon.job_until("one", "pending")
        daemon.events.clear()
        daemon("query-jobs")
        daemon("job-finalize", id="two")
        daemon("query-jobs")
        daemon("job-dismiss", id="one")
        daemon("job-dismiss", id="two")
        bitmaps(daemon, "one", "two")

    both(script, racing=True)


def test_a_cancelled_member_takes_the_group_with_it(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_pair(daemon, "one")
        open_pair(daemon, "two")
        daemon(
            "transaction",
            actions=[backup("one", speed=1), backup("two", speed=1)],
            properties={"completion-mode": "grouped"},
        )
        daemon.job_reaches("one", MIB)
        daemon.job_reaches("two", MIB)
        daemon("block-job-cancel", device="two")
        daemon.job_until("one", "null")
        daemon("query-jobs")
        bitmaps(daemon, "one", "two")

    both(script, racing=True)


def test_a_new_bitmap_begins_where_the_full_backup_ends(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        open_pair(daemon, "disk")
        full = backup("disk")
        full["data"] = {k: v for k, v in full["data"].items() if k != "bitmap"}
        full["data"] |= {"sync": "full", "speed": 1, "filter-node-name": "filter"}
        daemon(
            "transaction",
            actions=[
                {"type": "block-dirty-bitmap-add", "data": {"node": "disk", "name": "next"}},
                {"type": "block-dirty-bitmap-disable", "data": {"node": "disk", "name": "b"}},
                full,
            ],
        )
        daemon.write("filter", 0, 65536, 9)
        daemon("block-job-set-speed", device="disk", speed=0)
        daemon.job_until("disk", "null")
        daemon.verify("disk-copy", 0, 65536, 1)
        bitmaps(daemon, "disk")
        daemon("x-debug-block-dirty-bitmap-sha256", node="disk", name="next")

    both(script, racing=True)
