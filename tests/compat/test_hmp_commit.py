"""The human monitor's commit: what it answers, and what becomes of the images."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from compat.test_blockemu_qemu import OURS, REAL, conversation, image

pytestmark = pytest.mark.compat

DRIVES = [
    *["-drive", "if=none,id=x,file=top.qcow2"],
    *["-drive", "if=none,id=y"],
    *["-drive", "if=none,id=z,driver=null-co"],
    *["-drive", "if=none,id=r,driver=raw,file=other.raw"],
]
REFUSED = ["hmp commit nonsense", "hmp commit y", "hmp commit z", "hmp commit r", "hmp commit"]
GRAPH = ["query-block", "query-named-block-nodes"]


def chain(folder: Path) -> None:
    """Make top.qcow2 on mid.qcow2 on base.raw, and other.raw."""
    image("create", "-f", "raw", "base.raw", "4M", cwd=folder)
    image("create", "-f", "raw", "other.raw", "1M", cwd=folder)
    over = ["create", "-f", "qcow2", "-b"]
    image(*over, "base.raw", "-F", "raw", "mid.qcow2", "6M", cwd=folder)
    image(*over, "mid.qcow2", "-F", "qcow2", "top.qcow2", cwd=folder)
    for name, command in (("mid", "write -P 5 1M 1M"), ("top", "write -P 6 3M 2M")):
        argv = ["qemu-io", "-c", command, f"{name}.qcow2"]
        subprocess.run(argv, cwd=folder, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "commands",
    [
        [*REFUSED, "hmp commit x", *GRAPH, 'hmp qemu-io x "write -P 1 0 64k"'],
        ["hmp commit all", *GRAPH, 'hmp qemu-io x "read -P 6 3M 2M"'],
        ["hmp commit x", 'hmp qemu-io x "write -P 9 64k 64k"', "hmp commit x", *GRAPH],
        ['hmp qemu-io x "write -P 9 1 7"', "hmp commit all", "hmp commit all"],
    ],
    ids=["refused, then done", "all", "twice", "all of what was written"],
)
def test_commit_answers_and_writes_the_same(
    tmp_path: Path, program: object, commands: list[str]
) -> None:
    ends = []
    for name, which in (("real", REAL), ("ours", OURS)):
        folder = tmp_path / name
        folder.mkdir()
        chain(folder)
        said = conversation(which, DRIVES, folder, commands)
        ends.append((said, {f.name: f.stat().st_size for f in folder.iterdir()}))
    real, ours = ends
    assert ours == real
    for name in ("top.qcow2", "mid.qcow2", "base.raw"):
        one, other = ((tmp_path / who / name).read_bytes() for who in ("real", "ours"))
        differ = next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), None)
        assert differ is None, f"{name} differs at {differ}"
