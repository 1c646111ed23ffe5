"""The interface of QEMU 4.2 that this project was begun for: nothing that it names is missing.

Each row says where in ``query-qmp-schema`` a type of that text is met, and what it must hold there:
members of an object (with ``?`` when optional), values of an enumeration, alternatives, features.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import Blockemu
from compat.test_schema import Schema

PROFILES = ["4.2", "all"]
NODES = "query-named-block-nodes -> []"
BITMAP = f"{NODES}.dirty-bitmaps.[]"
OLD_BITMAP = "query-block -> [].dirty-bitmaps.[]"
ADD, CREATE = "blockdev-add", "blockdev-create options"
BACKUP = (
    "job-id? device sync speed? bitmap? bitmap-mode? compress? on-source-error? on-target-error? "
    "auto-finalize? auto-dismiss?"
)
INJECT = f"{ADD} (blkdebug).inject-error.[]"
QCOW2 = f"{NODES}.image.format-specific.(qcow2).data"

MEMBERS = {
    NODES: "write_threshold dirty-bitmaps?",
    BITMAP: "name? count granularity recording busy status persistent inconsistent?",
    f"{QCOW2}.bitmaps.[]": "name granularity flags",
    "query-block -> []": "dirty-bitmaps? io-status?",
    "block-latency-histogram-set": (
        "id boundaries? boundaries-read? boundaries-write? boundaries-flush?"
    ),
    "blockdev-snapshot-sync": "device? node-name? snapshot-file snapshot-node-name? format? mode?",
    "blockdev-snapshot": "node overlay",
    "drive-backup": BACKUP + " target format? mode?",
    "blockdev-backup": BACKUP + " target",
    "block-dirty-bitmap-add": "node name granularity? persistent? disabled?",
    "block-dirty-bitmap-merge": "node target bitmaps",
    "block-dirty-bitmap-merge bitmaps.[].|object": "node name",
    f"{ADD} (file)": (
        "filename pr-manager? locking? aio? drop-cache? x-check-cache-dropped?"
    ),
    f"{ADD} (null-co)": "size? latency-ns? read-zeroes?",
    f"{ADD} (null-aio)": "size? latency-ns? read-zeroes?",
    INJECT: "event state? iotype? errno? sector? once? immediately?",
    f"{ADD} (nbd)": "server export? tls-creds? x-dirty-bitmap? reconnect-delay?",
    f"{ADD} (raw)": "offset? size?",
    f"{CREATE}.(file)": "filename size preallocation? nocow?",
    f"{CREATE}.(luks)": (
        "file size preallocation? key-secret? cipher-alg? cipher-mode? ivgen-alg? ivgen-hash-alg? "
        "hash-alg? iter-time?"
    ),
    f"{CREATE}.(qcow2)": (
        "file size version? backing-file? backing-fmt? encrypt? cluster-size? preallocation? "
        "lazy-refcounts? refcount-bits? data-file? data-file-raw?"
    ),
    f"{CREATE}.(vdi)": "file size preallocation?",
}  # fmt: skip
EVENTS = """
l1_update l1_grow_alloc_table l1_grow_write_table l1_grow_activate_table l2_load l2_update
l2_update_compressed l2_alloc_cow_read l2_alloc_write read_aio read_backing_aio read_compressed
write_aio write_compressed vmstate_load vmstate_save cow_read cow_write reftable_load reftable_grow
reftable_update refblock_load refblock_update refblock_update_part refblock_alloc
refblock_alloc_hookup refblock_alloc_write refblock_alloc_write_blocks refblock_alloc_write_table
refblock_alloc_switch_table cluster_alloc cluster_alloc_bytes cluster_free flush_to_os
flush_to_disk pwritev_rmw_head pwritev_rmw_after_head pwritev_rmw_tail pwritev_rmw_after_tail
pwritev pwritev_zero pwritev_done empty_image_prepare l1_shrink_write_table
l1_shrink_free_l2_clusters cor_write cluster_alloc_space none
"""
PREALLOCATION = "off metadata falloc full"
VALUES = {
    f"{BITMAP}.status": "active disabled frozen locked inconsistent",
    f"{QCOW2}.bitmaps.[].flags.[]": "in-use auto",
    "query-block -> [].io-status": "ok failed nospace",
    "drive-backup sync": "top full none incremental bitmap",
    "blockdev-backup sync": "top full none incremental bitmap",
    "blockdev-backup bitmap-mode": "on-success never always",
    "blockdev-mirror copy-mode": "background write-blocking",
    "drive-mirror mode": "existing absolute-paths",
    "blockdev-snapshot-sync mode": "existing absolute-paths",
    f"{INJECT}.event": EVENTS,
    f"{INJECT}.iotype": "read write write-zeroes discard flush block-status",
    f"{CREATE}.(file).preallocation": PREALLOCATION,
    f"{CREATE}.(luks).preallocation": PREALLOCATION,
    f"{CREATE}.(qcow2).preallocation": PREALLOCATION,
    f"{CREATE}.(vdi).preallocation": PREALLOCATION,
}
ACTIONS = """
abort blockdev-backup drive-backup blockdev-snapshot blockdev-snapshot-sync
blockdev-snapshot-internal-sync block-dirty-bitmap-add block-dirty-bitmap-remove
block-dirty-bitmap-clear block-dirty-bitmap-enable block-dirty-bitmap-disable
block-dirty-bitmap-merge
"""
JOB_EVENTS = """
BLOCK_WRITE_THRESHOLD BLOCK_IO_ERROR BLOCK_IMAGE_CORRUPTED BLOCK_JOB_COMPLETED BLOCK_JOB_CANCELLED BLOCK_JOB_ERROR BLOCK_JOB_READY
BLOCK_JOB_PENDING JOB_STATUS_CHANGE
"""
COMMANDS = """
block-set-write-threshold block-latency-histogram-set blockdev-snapshot-sync blockdev-snapshot
drive-backup blockdev-backup block-dirty-bitmap-add block-dirty-bitmap-remove
block-dirty-bitmap-clear block-dirty-bitmap-enable block-dirty-bitmap-disable
block-dirty-bitmap-merge transaction blockdev-create query-block query-named-block-nodes
"""


def place(schema: Schema, path: str) -> Any:
    """Return the type at a place: a command's argument, or after ``->`` what it returns."""
    command, _, rest = path.partition(" ")
    entity = schema[schema[command]["ret-type" if rest.startswith("->") else "arg-type"]]
    for step in filter(None, rest.removeprefix("->").strip().split(".")):
        if step.startswith("("):
            case = step.strip("()")
            entity = schema[next(v["type"] for v in entity["variants"] if v["case"] == case)]
        elif step.startswith("|"):
            parts = (schema[member["type"]] for member in entity["members"])
            entity = next(part for part in parts if part["meta-type"] == step[1:])
        else:
            entity = schema.member(entity, step)
    return entity


@pytest.fixture(scope="module", params=PROFILES)
def interface(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Schema:
    """Give the interface that a profile shows."""
    folder = Path(tmp_path_factory.mktemp("interface"))
    with Blockemu(folder, "--compat", request.param) as daemon:
        return Schema(daemon("query-qmp-schema"))


def shown(entity: Any) -> Iterator[str]:
    for member in entity["members"]:
        yield member["name"] + ("?" if "default" in member else "")


@pytest.mark.parametrize("path", MEMBERS)
def test_every_member_is_there(interface: Schema, path: str) -> None:
    missing = set(MEMBERS[path].split()) - set(shown(place(interface, path)))
    assert missing == set()


def test_every_member_of_query_blocks_bitmaps_is_there(interface: Schema) -> None:
    assert set(MEMBERS[BITMAP].split()) <= set(shown(place(interface, OLD_BITMAP)))


@pytest.mark.parametrize(("profile", "there"), [("4.2", False), ("all", True)])
def test_bitmaps_can_be_told_to_load_themselves_but_not_in_the_release(
    tmp_path: Path, profile: str, there: bool
) -> None:
    """The text still has ``autoload``; 4.2 as it was released had dropped it."""
    with Blockemu(tmp_path, "--compat", profile) as daemon:
        members = shown(place(Schema(daemon("query-qmp-schema")), "block-dirty-bitmap-add"))
        assert ("autoload?" in members) == there


@pytest.mark.parametrize("path", VALUES)
def test_every_value_is_there(interface: Schema, path: str) -> None:
    assert set(VALUES[path].split()) - set(place(interface, path)["values"]) == set()


def test_every_command_and_event_is_there(interface: Schema) -> None:
    assert set(COMMANDS.split()) - set(interface.named("command")) == set()
    assert set(JOB_EVENTS.split()) - set(interface.named("event")) == set()


def test_every_action_of_a_transaction_is_there(interface: Schema) -> None:
    cases = {each["case"] for each in place(interface, "transaction actions.[]")["variants"]}
    assert set(ACTIONS.split()) - cases == set()


def test_bitmaps_are_merged_from_their_own_node_and_from_others(interface: Schema) -> None:
    source = place(interface, "block-dirty-bitmap-merge bitmaps.[]")
    assert source["meta-type"] == "alternate"
    kinds = {interface[each["type"]]["meta-type"] for each in source["members"]}
    assert kinds == {"builtin", "object"}


def test_files_say_that_they_are_opened_for_writing_only_when_needed(interface: Schema) -> None:
    features = set(place(interface, f"{ADD} (file)").get("features", ()))
    assert "dynamic-auto-read-only" in features


def test_the_job_of_a_backup_says_how_its_errors_are_handled(interface: Schema) -> None:
    values = set(place(interface, "blockdev-backup on-source-error")["values"])
    assert values == {"report", "ignore", "enospc", "stop", "auto"}
