"""What clients stumbled over when versions changed: each profile behaves as its version did."""

from typing import Any

import pytest
from qemu.qmp import ExecuteError

from blockemu.testing import running

VERSIONS = ("4.2", "5.2", "6.2", "7.2")
DISK = {"driver": "null-co", "node_name": "disk", "size": 1 << 20}
REJECT = "deprecated-input=reject"


async def refused(emu: Any, command: str, **arguments: Any) -> str:
    """Return why something is refused, nothing if it is not."""
    try:
        await emu.execute(command, **arguments)
    except ExecuteError as e:
        return str(e)
    return ""


@pytest.mark.parametrize("version", VERSIONS)
async def test_where_bitmaps_are_shown_and_whether_with_their_status(version: str) -> None:
    """Backup programs looked for them at the device until 6.0 took them away there."""
    async with running(profile=version) as emu:
        await emu.execute("blockdev-add", **DISK)
        await emu.execute("block-dirty-bitmap-add", node="disk", name="b")
        (node,) = await emu.execute("query-named-block-nodes")
        (bitmap,) = node["dirty-bitmaps"]
        assert ("status" in bitmap) is (version < "6.0")
        assert bitmap["recording"]
        assert not bitmap["busy"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_a_failed_copy_before_a_write_means(version: str) -> None:
    """Known since 7.1; the filter itself is of 6.2."""
    async with running(profile=version) as emu:
        for name in ("disk", "old"):
            await emu.execute("blockdev-add", **DISK | {"node_name": name})
        filter_ = {"driver": "copy-before-write", "file": "disk", "target": "old"}
        said = await refused(emu, "blockdev-add", node_name="f", **filter_, cbw_timeout=45)
        if version < "6.2":
            assert said == "Invalid parameter 'copy-before-write'"
        elif version < "7.1":
            assert said == "Parameter 'cbw-timeout' is unexpected"
            assert not await refused(emu, "blockdev-add", node_name="f", **filter_)
        else:
            assert not said


@pytest.mark.parametrize(("version", "seconds"), [("7.2", 2.05032704), ("all", 45)])
async def test_a_timeout_that_7_2_had_no_room_for_was_cut_there(
    version: str, seconds: float
) -> None:
    """Of its nanoseconds 32 bits were kept."""
    async with running(profile=version) as emu:
        for name in ("disk", "old"):
            await emu.execute("blockdev-add", **DISK | {"node_name": name})
        filter_ = {"driver": "copy-before-write", "file": "disk", "target": "old"}
        await emu.execute("blockdev-add", node_name="f", **filter_, cbw_timeout=45)
        node: Any = emu.daemon.emu.graph.nodes["f"]
        assert node.timeout == seconds * 1e9


@pytest.mark.parametrize("version", VERSIONS)
async def test_reopening_has_its_name_of_the_version(version: str) -> None:
    async with running(profile=version) as emu:
        await emu.execute("blockdev-add", **DISK)
        options = {"driver": "null-co", "node-name": "disk", "size": 1 << 20}
        new = await refused(emu, "blockdev-reopen", options=[options])
        old = await refused(emu, "x-blockdev-reopen", **options)
        absent = "The command {} has not been found"
        if version < "6.1":
            assert (new, old) == (absent.format("blockdev-reopen"), "")
        else:
            assert (new, old) == ("", absent.format("x-blockdev-reopen"))


@pytest.mark.parametrize("version", VERSIONS)
async def test_bitmaps_are_migrated_under_other_names_and_made_to_last(version: str) -> None:
    """Names since 5.2, the transformation that incremental backup relies on since 6.0."""
    bitmap = {"name": "b", "alias": "a", "transform": {"persistent": True}}
    node = {"node-name": "disk", "alias": "n", "bitmaps": [bitmap]}
    async with running(profile=version) as emu:
        said = await refused(emu, "migrate-set-parameters", block_bitmap_mapping=[node])
    wanted = {
        "4.2": "Parameter 'block-bitmap-mapping' is unexpected",
        "5.2": "Parameter 'transform' is unexpected",
    }
    assert said.replace("block-bitmap-mapping[0].bitmaps[0].", "") == wanted.get(version, "")


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_is_deprecated_is_refused_if_that_is_wanted(version: str) -> None:
    """``drive-backup`` since 6.2; what is so since 10.1, like ``block-job-complete``, never."""
    async with running(profile=f"{version},{REJECT}") as emu:
        said = await refused(emu, "drive-backup", device="x", target="t", sync="full")
        deprecated = "Deprecated command drive-backup disabled by policy"
        assert said.startswith(deprecated) is (version >= "6.2")
        assert "policy" not in await refused(emu, "block-job-complete", device="x")


@pytest.mark.parametrize("version", VERSIONS)
async def test_children_are_not_among_what_is_told_of_a_node(version: str) -> None:
    """They are since 10.1, and tools took another node than before."""
    async with running(profile=version) as emu:
        await emu.execute("blockdev-add", **DISK)
        (node,) = await emu.execute("query-named-block-nodes")
        assert "children" not in node


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_conflict_of_permissions_has_the_words_of_the_version(version: str) -> None:
    """Before 6.1 QEMU told of the user that was there, and not always of what it was."""
    async with running(profile=version, machine="pc") as emu:
        await emu.execute("blockdev-add", **DISK | {"node_name": "fmt"})
        await emu.execute("device_add", driver="virtio-blk-pci", drive="fmt", id="sda")
        said = await refused(emu, "device_add", driver="virtio-blk-pci", drive="fmt", id="sdb")
        if version < "6.1":
            assert said == (
                "Conflicts with use by /machine/peripheral/sda/virtio-backend as 'root', which "
                "does not allow 'write' on fmt"
            )
        else:
            assert said.startswith("Permission conflict on node 'fmt': permissions 'write' are")


async def test_conflicts_below_and_those_of_who_shares_less_had_words_of_their_own() -> None:
    disk = {"driver": "null-co", "size": 1 << 20}
    unshared = {"driver": "blkdebug", "unshare_child_perms": ["write"]}
    async with running(profile="5.2", machine="pc") as emu:
        await emu.execute("blockdev-add", node_name="base", **disk)
        await emu.execute("blockdev-add", node_name="quiet", image="base", **unshared)
        await emu.execute("blockdev-add", node_name="fmt", driver="raw", file="base")
        said = await refused(emu, "device_add", driver="virtio-blk-pci", drive="fmt", id="d")
        assert said == (
            "Conflicts with use by quiet as 'image', which does not allow 'write' on base"
        )
        await emu.execute("blockdev-add", node_name="disk", **disk)
        await emu.execute("blockdev-add", node_name="over", driver="raw", file="disk")
        await emu.execute("device_add", driver="virtio-blk-pci", drive="over", id="e")
        said = await refused(emu, "blockdev-add", node_name="q", image="disk", **unshared)
        assert said == "Conflicts with use by over as 'file', which uses 'write' on disk"
