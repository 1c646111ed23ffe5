"""Input that kills or hangs the real 7.2 daemon: ours answers it and goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import Blockemu
from compat.verdicts.graph import probing_files
from compat.verdicts.hostile import backing_name

Json = dict[str, Any]


def transaction(kind: str, data: Json, mode: str = "individual") -> tuple[str, Json]:
    """Return a transaction of one action."""
    actions = [{"type": kind, "data": data}]
    return "transaction", {"actions": actions, "properties": {"completion-mode": mode}}


ENABLE = "block-dirty-bitmap-enable"
LOOP = {"driver": "qcow2", "file": {"driver": "file", "filename": "loop1.qcow2"}}
SIZED = {"driver": "qcow2", "file": {"driver": "file", "filename": "sized.qcow2"}}
REFUSED = {
    "negative size": ("blockdev-add", {"driver": "null-co", "node-name": "x", "size": -1}),
    "size in a json: backing name that is no number": ("blockdev-add", SIZED | {"node-name": "x"}),
    "backing loop of readers": ("blockdev-add", LOOP | {"node-name": "x", "read-only": True}),
    "enabling no bitmap in a transaction": transaction(ENABLE, {"node": "n", "name": "x"}),
    "enabling on no node in a transaction": transaction(ENABLE, {"node": "x", "name": "b"}),
    "enabling in a group": transaction(ENABLE, {"node": "n", "name": "b"}, "grouped"),
}
HARMLESS = {
    "reopening nothing": ("blockdev-reopen", {"options": []}),
    "merging nothing": ("block-dirty-bitmap-merge", {"node": "n", "target": "b", "bitmaps": []}),
    "merging nothing in a transaction": transaction(
        "block-dirty-bitmap-merge", {"node": "n", "target": "b", "bitmaps": []}
    ),
}


def files(folder: Path) -> None:
    probing_files(folder)
    data = bytearray((folder / "a.qcow2").read_bytes())
    backing_name(b'json:{"driver":"null-co","size":"zzz"}')(data)
    (folder / "sized.qcow2").write_bytes(data)


@pytest.fixture
def daemon(tmp_path: Path, program: Callable[[str], str]):
    program("qemu-img")
    files(tmp_path)
    with Blockemu(tmp_path) as daemon:
        daemon("blockdev-add", driver="null-co", node_name="n")
        daemon("block-dirty-bitmap-add", node="n", name="b")
        yield daemon
        assert [node["node-name"] for node in daemon("query-named-block-nodes")] == ["n"]
        assert daemon.stop() == 0


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_leaves_nothing_behind(daemon: Blockemu, name: str) -> None:
    command, arguments = REFUSED[name]
    answer = daemon.execute(command, arguments)
    assert answer["error"]["class"] == "GenericError"


@pytest.mark.parametrize("name", HARMLESS)
def test_doing_nothing_succeeds(daemon: Blockemu, name: str) -> None:
    command, arguments = HARMLESS[name]
    assert daemon.execute(command, arguments) == {"return": {}}
