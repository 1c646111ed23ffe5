"""A driver of another distribution: installed, it is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

DRIVER = '''
from blockemu.extents import ALLOCATED, DATA, Extents
from blockemu.blockdev_options import NodeOptions
from blockemu.node import Node


class CountOptions(NodeOptions, tag="count"):
    """Options of the count driver.

    @size: size of the device in bytes
    """

    size: int = 4096


class Count(Node[CountOptions]):
    """A device whose bytes count up."""

    Options = CountOptions
    is_protocol = True

    @property
    def length(self) -> int:
        return self.options.size

    async def pread(self, offset: int, buf: memoryview) -> None:
        buf[:] = bytes((offset + i) & 255 for i in range(len(buf)))
'''


def test_a_driver_announced_by_an_entry_point_can_be_added(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(DRIVER)
    info = tmp_path / "counting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[blockemu.drivers]\ncount = counting\n")
    commands = [
        {"execute": "qmp_capabilities"},
        {
            "execute": "blockdev-add",
            "arguments": {"driver": "count", "node-name": "c", "size": "no"},
        },
        {
            "execute": "blockdev-add",
            "arguments": {"driver": "count", "node-name": "c", "size": 1024},
        },
        {"execute": "blockdev-add", "arguments": {"driver": "raw", "node-name": "r", "file": "c"}},
        {"execute": "query-named-block-nodes", "arguments": {"flat": True}},
        {"execute": "quit"},
    ]
    done = subprocess.run(
        [sys.executable, "-m", "blockemu", "--qmp", "stdio"],
        input="".join(json.dumps(command) + "\n" for command in commands),
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    _greeting, *answers = [json.loads(line) for line in done.stdout.splitlines()]
    refused, added, above, nodes = answers[1:5]
    assert refused["error"]["desc"] == "Invalid parameter type for 'size', expected: integer"
    assert (added, above) == ({"return": {}}, {"return": {}})
    assert [(node["drv"], node["image"]["virtual-size"]) for node in nodes["return"]] == [
        ("raw", 1024),
        ("count", 1024),
    ]
