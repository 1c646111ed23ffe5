"""What a profile shows and says: the page of all differences, texts, input, output and policies."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import ExecuteError

from blockemu.commands import load
from blockemu.errors import QmpError
from blockemu.nbd import wire
from blockemu.qmp_server.profile import Profile
from blockemu.qmp_server.qapi import InvalidInput
from blockemu.rewording import TABLE, reword
from blockemu.testing import running

TOOLS = Path(__file__).parents[2] / "tools"


def test_the_page_is_of_these_declarations() -> None:
    done = subprocess.run(
        [sys.executable, str(TOOLS / "write_versions.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def templates(base: type[Any]) -> set[str]:
    return {base.template} | {text for cls in base.__subclasses__() for text in templates(cls)}


def test_each_text_that_was_other_once_is_one_of_ours() -> None:
    assert list(load())  # which imports them all
    assert {row.now for row in TABLE} <= templates(QmpError) | templates(InvalidInput)


@pytest.mark.parametrize(
    ("profile", "command", "text", "said"),
    [
        (
            "4.2",
            "",
            "Cannot find device='d' nor node-name=''",
            "Cannot find device=d nor node_name=",
        ),
        ("5.2", "", "No: Duplicate nodes with node-name='a'", "No: Duplicate node name"),
        ("5.2", "blockdev-del", "Failed to find node with node-name='a'", "Cannot find node a"),
        ("5.2", "other", "Failed to find node with node-name='a'", None),
        ("5.2", "", "Parameter 'sync' does not accept value 'x'", "Invalid parameter 'x'"),
        ("6.2", "", "Parameter 'sync' does not accept value 'x'", None),
        ("6.2", "", "Invalid node-name: '1'", None),
        ("all", "", "Invalid node-name: '1'", None),
    ],
)
def test_texts_are_of_their_time(profile: str, command: str, text: str, said: str | None) -> None:
    assert reword(Profile.parse(profile), text, command) == (said or text)


async def refusal(emu: Any, command: str, **arguments: Any) -> str:
    with pytest.raises(ExecuteError) as info:
        await emu.execute(command, **arguments)
    return str(info.value)


DISK = {"driver": "null-co", "node_name": "disk", "size": 1 << 20}


@pytest.mark.parametrize(
    ("profile", "reopen", "no_name", "no_node", "no_bitmap_node"),
    [
        (
            "4.2",
            "x-blockdev-reopen",
            "Node name not specified",
            "Cannot find node named 'no'",
            "Cannot find device=no nor node_name=no",
        ),
        (
            "7.2",
            "blockdev-reopen",
            "node-name not specified",
            "Failed to find node with node-name='no'",
            "Cannot find device='no' nor node-name='no'",
        ),
    ],
)
async def test_a_node_is_reopened_by_the_command_of_the_version(
    profile: str, reopen: str, no_name: str, no_node: str, no_bitmap_node: str
) -> None:
    def options(**members: Any) -> dict[str, Any]:
        members = {"driver": "null-co"} | members
        return members if reopen == "x-blockdev-reopen" else {"options": [members]}

    async with running(profile=profile) as emu:
        await emu.execute("blockdev-add", **DISK)
        same = {"node-name": "disk", "size": 1 << 20}
        await emu.execute(reopen, **options(**same, **{"read-only": True}))
        (node,) = await emu.execute("query-named-block-nodes")
        assert node["ro"]
        assert await refusal(emu, reopen, **options()) == no_name
        assert await refusal(emu, reopen, **options(**{"node-name": "no"})) == no_node
        other = {"x-blockdev-reopen": "blockdev-reopen"}.get(reopen, "x-blockdev-reopen")
        assert await refusal(emu, other) == f"The command {other} has not been found"
        said = await refusal(emu, "block-dirty-bitmap-add", node="no", name="b")
        assert said == no_bitmap_node
        await emu.execute("blockdev-del", node_name="disk")


async def test_a_job_tells_what_went_wrong_in_the_words_of_the_version() -> None:
    async with running(profile="4.2") as emu:
        options = {"driver": "vdi", "file": "no", "size": 1 << 20}
        await emu.execute("blockdev-create", job_id="j", options=options)
        while (job := (await emu.execute("query-jobs"))[0])["status"] != "concluded":
            await emu.event("JOB_STATUS_CHANGE")
        assert job["error"] == "Cannot find device=no nor node_name=no"
        await emu.execute("job-dismiss", id="j")


@pytest.mark.parametrize(("profile", "refused"), [("6.2", True), ("7.2", False)])
async def test_bitmaps_to_export_were_names_once(
    tmp_path: Path, profile: str, refused: bool
) -> None:
    export = {"type": "nbd", "id": "e", "node_name": "disk", "writable": True}
    address = {"type": "unix", "data": {"path": str(tmp_path / "s")}}
    async with running(profile=profile) as emu:
        await emu.execute("blockdev-add", **DISK)
        await emu.execute("block-dirty-bitmap-add", node="disk", name="b")
        await emu.execute("nbd-server-start", addr=address)
        placed = [{"node": "disk", "name": "b"}]
        if refused:
            said = await refusal(emu, "block-export-add", **export, bitmaps=placed)
            assert said == "Invalid parameter type for 'bitmaps[0]', expected: string"
            await emu.execute("block-export-add", **export, bitmaps=["b"])
        else:
            await emu.execute("block-export-add", **export, bitmaps=placed)
        await emu.execute("nbd-server-stop")
        await emu.execute("blockdev-del", node_name="disk")


@pytest.mark.parametrize(
    "driver", ["nvme", "nfs", "gluster", "iscsi", "rbd", "ssh", "https", "vmdk"]
)
async def test_drivers_we_are_built_without_are_refused_as_by_a_qemu_without(driver: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "nvme": {"device": "0000:00:01.0", "namespace": 1},
        "nfs": {"server": {"type": "inet", "host": "h"}, "path": "/p"},
        "gluster": {"volume": "v", "path": "p", "server": [{"type": "unix", "path": "/s"}]},
        "iscsi": {"transport": "tcp", "portal": "h", "target": "t"},
        "rbd": {"pool": "p", "image": "i"},
        "ssh": {"server": {"host": "h", "port": "22"}, "path": "p"},
        "https": {"url": "https://localhost/disk"},
        "vmdk": {"file": "disk"},
    }
    async with running() as emu:
        said = await refusal(emu, "blockdev-add", driver=driver, node_name="n", **options[driver])
        assert said == f"Unknown driver '{driver}'"
        incomplete = await refusal(emu, "blockdev-add", driver=driver, node_name="n")
        assert incomplete.startswith("Parameter '")
        create = {"driver": driver, "size": 512, "location": options[driver]}
        if driver in ("nfs", "gluster", "rbd", "ssh"):
            said = await refusal(emu, "blockdev-create", job_id="j", options=create)
            assert said == f"Block driver '{driver}' not found or not supported"


async def test_sheepdog_was_there_before_6_0() -> None:
    options = {"server": {"type": "unix", "path": "/s"}, "vdi": "v"}
    for profile, said in (
        ("5.2", "Unknown driver 'sheepdog'"),
        ("6.2", "Parameter 'driver' does not accept value 'sheepdog'"),
    ):
        async with running(profile=profile) as emu:
            add = {"driver": "sheepdog", "node_name": "n", **options}
            assert await refusal(emu, "blockdev-add", **add) == said


async def test_policies_are_those_of_the_version() -> None:
    address = {"type": "unix", "data": {"path": "/nowhere/at/all"}}
    for profile, refused in (("5.2", False), ("6.2", True), ("all", True)):
        async with running(profile=f"{profile},deprecated-input=reject") as emu:
            backup = {"device": "no", "target": "/t", "sync": "full"}
            said = await refusal(emu, "drive-backup", **backup)
            disabled = "Deprecated command drive-backup disabled by policy"
            assert (said == disabled) is refused
            said = await refusal(emu, "nbd-server-add", device="no")
            assert said == "Deprecated command nbd-server-add disabled by policy"
            assert "disabled" not in await refusal(emu, "nbd-server-start", addr=address)
    async with running(profile="all,deprecated-output=hide,unstable-input=reject") as emu:
        await emu.execute("blockdev-add", **DISK)
        await emu.execute("block-dirty-bitmap-add", node="disk", name="b")
        (node,) = await emu.execute("query-named-block-nodes")
        assert "status" not in node["dirty-bitmaps"][0]
        assert "encryption_key_missing" not in node
        said = await refusal(emu, "x-debug-query-block-graph")
        assert said == "Unstable command x-debug-query-block-graph disabled by policy"
        await emu.execute("blockdev-del", node_name="disk")


@pytest.mark.parametrize(
    ("profile", "writable", "most", "several"),
    [
        ("7.2", True, 100, True),
        ("7.2", True, 1, False),
        ("6.2", True, 100, False),
        ("6.2", False, 100, True),
        ("6.2", False, 1, False),
    ],
)
async def test_writers_may_have_several_connections_since_7_1(
    tmp_path: Path, profile: str, writable: bool, most: int, several: bool
) -> None:
    path = str(tmp_path / "s")
    address = {"type": "unix", "data": {"path": path}}
    async with running(profile=profile) as emu:
        await emu.execute("blockdev-add", **DISK)
        await emu.execute("nbd-server-start", addr=address, max_connections=most)
        export = {"type": "nbd", "id": "e", "node_name": "disk", "writable": writable}
        await emu.execute("block-export-add", **export)
        reader, writer = await asyncio.open_unix_connection(path)
        await reader.readexactly(18)
        writer.write(struct.pack(">I", 3) + wire.OPTION.pack(wire.OPTION_MAGIC, 1, 4) + b"disk")
        _, flags = struct.unpack(">QH", await reader.readexactly(10))
        assert bool(flags & wire.CAN_MULTI_CONN) is several
        writer.close()
        await emu.execute("nbd-server-stop")
        await emu.execute("blockdev-del", node_name="disk")
