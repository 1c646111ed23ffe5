"""blkdebug: the same rules and requests on QEMU and on ours, printed text and images alike."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import DEADLINE, Both, Daemon, System, image

RATES = re.compile(r"[0-9:.]+( sec)? \([0-9.]+ \S+/sec and [0-9.]+ ops/sec\)")
EVENTS = """\
l1_update l1_grow_alloc_table l1_grow_write_table l1_grow_activate_table l2_load l2_update
l2_update_compressed l2_alloc_cow_read l2_alloc_write read_aio read_backing_aio read_compressed
write_aio write_compressed vmstate_load vmstate_save cow_read cow_write reftable_load reftable_grow
reftable_update refblock_load refblock_update refblock_update_part refblock_alloc
refblock_alloc_hookup refblock_alloc_write refblock_alloc_write_blocks refblock_alloc_write_table
refblock_alloc_switch_table cluster_alloc cluster_alloc_bytes cluster_free flush_to_os flush_to_disk
pwritev_rmw_head pwritev_rmw_after_head pwritev_rmw_tail pwritev_rmw_after_tail pwritev pwritev_zero
pwritev_done empty_image_prepare l1_shrink_write_table l1_shrink_free_l2_clusters cor_write
cluster_alloc_space none"""
GARBAGE = {"pwritev_rmw_head", "pwritev_rmw_tail"}  # QEMU ignores that it could not read
SCRIPT = [
    "write -P 1 0 128k", "flush", "write -P 2 512 1k", "read 0 1k", "write -z 64k 64k",
    "discard 0 64k", "flush", "write -P 3 100 30", "read 100 100",
]  # fmt: skip
BREAKS = [
    "break nonsense A", "resume A", "remove_break A", "break write_aio A", "aio_write -P 5 0 4k",
    "wait_break A", "resume A", "aio_flush", "break flush_to_disk B", "remove_break B", "flush",
    "read -P 5 0 4k",
]  # fmt: skip
CONFIGS = [
    '[inject-error]\nevent = "foo"\n', "x\n", '[foo]\n', '[inject-error]\nbar = "1"\n',
    '[inject-error]\nstate = "1"\n', '[inject-error]\nevent = "none"\nerrno = "x"\n',
    '[inject-error]\nevent = "none"\nonce = "x"\n', '[set-state "1"]\nevent = "none"\n',
    '[inject-error]\nevent = "none"\niotype = "x"\n', "[set-state]\nevent = none\n", " \n",
    '[inject-error]\nevent = "none"\nerrno = "99999999999999999999"\n', "[inject-error\nx\n[a]\n",
    '[inject-error]\nevent = "l2_load"\nerrno = "28"\n[set-state "s"]\nevent = "none"\n',
]  # fmt: skip
OPTIONS: list[dict[str, Any]] = [
    {}, {"align": 3}, {"align": -1}, {"align": 1 << 31}, {"align": 512}, {"max-transfer": -1},
    {"align": 4096, "max-transfer": 512}, {"max-transfer": 1 << 31},
    {"align": 4096, "opt-write-zero": 512}, {"align": 4096, "max-discard": 512},
    {"opt-write-zero": 4096, "max-write-zero": 1024}, {"opt-discard": 4096, "max-discard": 1024},
    {"config": "nowhere"}, {"config": "/"}, {"config": "empty"}, {"inject-error": [{}]},
    {"inject-error": [{"event": "foo"}]}, {"set-state": [{"event": "none"}]},
    {"inject-error": [{"event": "none", "errno": -5, "state": -1, "sector": -3}]},
    {"inject-error": [{"event": "l2_load", "once": True}], "set-state": [{"event": "none", "new_state": 2}]},
    {"take-child-perms": ["write"], "unshare-child-perms": ["resize"]}, {"take-child-perms": ["x"]},
]  # fmt: skip


def prepare(folder: Path) -> None:
    image("create", "-q", "-f", "qcow2", "-o", "cluster_size=64k", "q.img", "1M", cwd=folder)
    (folder / "raw.img").write_bytes(bytes(range(256)) * 4096)
    (folder / "empty").write_text("")


def node(driver: str, filename: str, **debug: Any) -> dict[str, Any]:
    below = {"driver": "blkdebug", "node-name": "debug"}
    below |= {"image": {"driver": "file", "filename": filename}} | debug
    return {"driver": driver, "node-name": "d", "discard": "unmap", "file": below}


def requests(daemon: Daemon, lines: list[str]) -> None:
    for line in lines:
        daemon.execute("human-monitor-command", {"command-line": f'qemu-io d "{line}"'})


def printed(daemon: Daemon) -> list[str]:
    return RATES.sub("RATES", daemon.printed() + daemon.errors()).splitlines()


def assert_same(both: Both, filename: str, options: dict[str, Any], lines: list[str]) -> None:
    def script(daemon: Daemon) -> None:
        daemon.execute("blockdev-add", options)
        requests(daemon, lines)
        daemon.execute("blockdev-del", {"node-name": "d"})

    real, ours = both(script, oracle=System, prepare=prepare)
    assert printed(ours) == printed(real)
    theirs = str(real.folder / filename)
    assert "identical" in image(
        "compare", "-f", options["driver"], "-F", options["driver"], filename, theirs, cwd=ours.folder
    )  # fmt: skip


@pytest.mark.parametrize("event", EVENTS.split())
def test_an_error_once_at_an_event_of_qcow2_is_met_alike(both: Both, event: str) -> None:
    rule = {"event": event, "errno": 28, "once": True}
    assert_same(both, "q.img", node("qcow2", "q.img", **{"inject-error": [rule]}), SCRIPT)


@pytest.mark.parametrize("event", EVENTS.split())
def test_errors_from_an_event_of_qcow2_on_are_met_alike(both: Both, event: str) -> None:
    rule = {"event": event, "errno": 28}
    assert_same(both, "q.img", node("qcow2", "q.img", **{"inject-error": [rule]}), SCRIPT)


@pytest.mark.parametrize("event", [event for event in EVENTS.split() if event not in GARBAGE])
def test_an_error_at_an_event_of_the_request_layer_is_met_alike(both: Both, event: str) -> None:
    rule = {"event": event, "errno": 28, "once": True}
    options = node("raw", "raw.img", align=4096, **{"inject-error": [rule]})
    assert_same(both, "raw.img", options, SCRIPT)


@pytest.mark.parametrize(("driver", "filename"), [("raw", "raw.img"), ("qcow2", "q.img")])
@pytest.mark.parametrize("iotype", ["read", "write", "write-zeroes", "discard", "flush"])
def test_kinds_of_requests_fail_alike(both: Both, driver: str, filename: str, iotype: str) -> None:
    rules = [{"event": "write_aio", "iotype": iotype, "immediately": True, "sector": 128}]
    rules[0] |= {} if iotype != "flush" else {"sector": -1}
    assert_same(both, filename, node(driver, filename, **{"inject-error": rules}), SCRIPT)


def test_states_change_alike(both: Both) -> None:
    rules = {
        "set-state": [{"event": "write_aio", "state": 1, "new_state": 2}],
        "inject-error": [{"event": "write_aio", "state": 2, "errno": 5, "once": True}],
    }
    assert_same(both, "raw.img", node("raw", "raw.img", **rules), SCRIPT)


@pytest.mark.parametrize(("driver", "filename"), [("raw", "raw.img"), ("qcow2", "q.img")])
def test_requests_are_held_and_resumed_alike(tmp_path: Path, driver: str, filename: str) -> None:
    run = "import sys; from blockemu.programs.io_cli import main; sys.exit(main())"
    told = []
    for name, program in (("real", ["qemu-io"]), ("ours", [sys.executable, "-c", run])):
        folder = tmp_path / name
        folder.mkdir()
        prepare(folder)
        lines = [part for line in BREAKS for part in ("-c", line)]
        done = subprocess.run(
            [*program, "-f", driver, *lines, f"blkdebug::{filename}"],
            cwd=folder, capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        told.append((done.returncode, RATES.sub("RATES", done.stdout), done.stderr))
    assert told[1] == told[0]
    assert "Suspended request 'A'" in told[0][1]


GROWTH = {  # what is written so that tables grow, and at which events
    "write -b 0 64k": (
        "l1_update l1_grow_alloc_table l1_grow_write_table l1_grow_activate_table l2_update "
        "l2_alloc_write cluster_alloc refblock_load refblock_update_part write_aio"
    ),
    "write 0 9M": (
        "refblock_alloc_hookup refblock_alloc_write refblock_alloc_write_blocks reftable_grow "
        "refblock_alloc_write_table refblock_alloc_switch_table"
    ),
}


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize(
    ("line", "event"), [(line, event) for line in GROWTH for event in GROWTH[line].split()]
)
def test_an_error_while_tables_grow_is_met_alike(
    tmp_path: Path, line: str, event: str, *, once: bool
) -> None:
    run = "import sys; from blockemu.programs.io_cli import main; sys.exit(main())"
    told = []
    for name, program in (("real", ["qemu-io"]), ("ours", [sys.executable, "-c", run])):
        folder = tmp_path / name
        folder.mkdir()
        image("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "q.img", "32M", cwd=folder)
        top = {"driver": "qcow2", "file.driver": "blkdebug", "file.image.filename": "q.img"}
        rule = {"event": event, "errno": "28", "once": "on" if once else "off"}
        top |= {f"file.inject-error.0.{key}": value for key, value in rule.items()}
        options = ",".join(f"{key}={value}" for key, value in top.items())
        done = subprocess.run(
            [*program, "--cache", "writethrough", "-c", line, "--image-opts", options],
            cwd=folder, capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        errors = re.sub(r"^.*?: ", "", done.stderr, flags=re.MULTILINE)
        told.append((done.returncode, RATES.sub("RATES", done.stdout), errors))
        checked = subprocess.run(
            ["qemu-img", "check", "--output=json", "q.img"],
            cwd=folder, capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert "corruptions" not in json.loads(checked.stdout)
    assert told[1] == told[0]
    assert "No space left on device" in "".join(told[0][1:])


def test_options_are_judged_and_shown_alike(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        for debug in OPTIONS:
            daemon.execute("blockdev-add", node("qcow2", "q.img", **debug))
            daemon("query-named-block-nodes", flat=True)
            daemon.execute("blockdev-del", {"node-name": "d"})

    both(script, oracle=System, prepare=prepare)


def test_files_with_rules_are_judged_alike(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        for text in CONFIGS:
            (daemon.folder / "rules").write_text(text)
            daemon.execute("blockdev-add", node("qcow2", "q.img", config="rules"))
            requests(daemon, ["read 0 512", "write 0 512"])
            daemon.execute("blockdev-del", {"node-name": "d"})

    real, ours = both(script, oracle=System, prepare=prepare)
    assert printed(ours) == printed(real)
