"""QMP commands drawn at random from the real daemon's own schema, with names that mean something.

The words for a member's value come from what the member is called: node names for ``device``, file
names for ``filename``.  Some draws are spoilt on purpose: a member missing, unknown, or of another
type.  The same seed gives the same commands.
"""

from __future__ import annotations

import os
import random
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from compat.daemon import Daemon, image
from compat.transcript import conversation, events_by_job

Json = Any
Said = tuple[list[str], dict[str, list[str]]]
# A loopback address of this process's own: others are refused at 127.0.0.1:1 (make test is parallel).
HOST = str(ip_address("127.64.0.0") + os.getpid())
_TIME = re.compile(r'("(?:date|vm-clock)-n?sec": )\d+')
_FILE_SIZE = re.compile(r'"virtual-size": \d+(, "filename": "[^"]*\.qcow2", "format": "file")')
_RAW = re.compile(r'"data-file-raw": false, |(?:, )?"data-file-raw": false')
MIB = 1 << 20
NODES = ["raw", "q", "over", "null", "t", "x1", "x2", "x3", "x4", "x5"]
STRANGE_NODES = ["", "9a", "none", "a b", "-", "x" * 32, "q\u00e4"]
FILES = ["a.raw", "b.raw", "odd.raw", "a.qcow2", "b.qcow2", "over.qcow2", "empty", "text"]
STRANGE_FILES = ["", "none", ".", "file:a.raw", "json:{}", "none:x", "nbd://127.0.0.1:1/x"]
_FILES_OF = {"qcow2": FILES[3:6], "raw": FILES[:3], "vdi": FILES[:6], "luks": FILES[:2]}
JOBS = ["j1", "j2", "j3"]
BITMAPS = ["b0", "b1", "b2", "b3"]
GROUPS = ["tg0", "tg1"]
EXPORTS = ["e0", "e1"]
_NODE_MEMBERS = [
    "node-name",
    "node",
    "device",
    "base-node",
    "top-node",
    "target",
    "overlay",
    "parent",
    "replaces",
    "bottom",
    "drive",
    "child",
    "filter-node-name",
    "backing-file-node",
    "snapshot-node-name",
    "image-node-name",
    "qdev",
]
_WORDS: dict[str, list[str]] = {
    **dict.fromkeys(_NODE_MEMBERS, NODES),
    "children": NODES,
    "filename": FILES,
    "base": FILES,
    "top": FILES,
    "backing-file": FILES,
    "snapshot-file": FILES,
    "job-id": JOBS,
    "bitmap": BITMAPS,
    "bitmaps": BITMAPS,
    "snapshot": ["s0", "s1"],
    "group": GROUPS,
    "throttle-group": GROUPS,
    "key-secret": ["sec0"],
    "path": ["nbd.sock", "none.sock"],
    "host": [HOST],
    "port": ["1"],
    "export": ["x"],
    "fmt": ["raw", "qcow2", "none"],
    "format": ["raw", "qcow2", "none"],
    "backing-fmt": ["raw", "qcow2", "none"],
    "qom-type": ["throttle-group", "secret", "iothread", "none"],
    "iothread": ["io0", "none"],
}
_NAMES: dict[str, list[str]] = {  # what "name" and "id" are, by the command's beginning
    "block-dirty-bitmap": BITMAPS,
    "block-export": EXPORTS,
    "nbd-server": EXPORTS,
    "job-": JOBS,
    "block-job": JOBS,
    "object": GROUPS,
    "blockdev-snapshot": ["s0", "s1"],
}
_NUMBERS = [0, 1, 3, 512, 4096, 65536, 100_000, MIB // 2, MIB, 2 * MIB, -1, 1 << 31, 1 << 62]
_FEW = {  # seconds, nanoseconds, and what makes a job last
    "open-timeout": [0],
    "reconnect-delay": [0, 1],
    "latency-ns": [0, 1000],
    "speed": [0, 0, 0, -1, 1 << 40],
    "granularity": [0, 3, 512, 65536, 1 << 20, 1 << 31],
    "vote-threshold": [1, 1, 2, 3, 0],
}
# Of these the time decides what they say, or they say what no two programs share.
_OFTEN = [
    "blockdev-add",
    "blockdev-add",
    "blockdev-add",
    "blockdev-del",
    "blockdev-backup",
    "blockdev-mirror",
    "block-commit",
    "block-stream",
    "blockdev-snapshot",
    "blockdev-reopen",
    "transaction",
    "block-export-add",
    "block-export-del",
    "nbd-server-start",
    "job-dismiss",
    "job-complete",
    "job-cancel",
    "job-finalize",
    "block-dirty-bitmap-add",
    "block-dirty-bitmap-merge",
    "query-named-block-nodes",
    "query-jobs",
    "block_resize",
    "query-block-jobs",
    "query-block-exports",
    "x-blockdev-change",
    "change-backing-file",
]
LEFT_OUT = frozenset(
    [
        "quit",
        "query-qmp-schema",
        "query-commands",
        "qom-set",
        "qom-get",
        "qom-list",
        "qom-list-properties",
        "qom-list-types",
        "chardev-add",
        "chardev-change",
        "chardev-remove",
        "chardev-send-break",
        "query-chardev",
        "query-version",
        "query-chardev-backends",
        "getfd",
        "closefd",
        "add-fd",
        "remove-fd",
        "query-fdsets",
        "trace-event-get-state",
        "trace-event-set-state",
        "query-iothreads",
        "qmp_capabilities",
        "query-command-line-options",
    ]
)
_DRIVERS = [
    "file",
    "null-co",
    "null-aio",
    "raw",
    "qcow2",
    "throttle",
    "copy-on-read",
    "blkdebug",
    "quorum",
    "compress",
    "preallocate",
    "copy-before-write",
    "snapshot-access",
    "blklogwrites",
    "vdi",
    "luks",
    "nbd",
]

# Ours takes descriptors, the storage daemon does not; enabling what is not there kills it.
_LEFT_OUT_VALUES = {"fd", "vsock", "block-dirty-bitmap-enable"}
_KINDS = {  # enums of which we offer a part only
    "driver": _DRIVERS,
    "qom-type": ["throttle-group", "secret", "iothread"],
}


def prepare(folder: Path) -> None:
    """Put the files there that FILES names."""
    for name, size in {"a.raw": MIB, "b.raw": MIB, "odd.raw": 1000, "empty": 0}.items():
        (folder / name).write_bytes(bytes([len(name)]) * size)
    (folder / "text").write_text("no image\n")
    image("create", "-q", "-f", "qcow2", "a.qcow2", "1M", cwd=folder)
    image("create", "-q", "-f", "qcow2", "b.qcow2", "1M", cwd=folder)
    image("snapshot", "-c", "s0", "b.qcow2", cwd=folder)
    image("bitmap", "--add", "b.qcow2", "b3", cwd=folder)
    image("create", "-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "over.qcow2", cwd=folder)


def open_disks(daemon: Daemon) -> None:
    """Open what the first of NODES names."""
    daemon("object-add", qom_type="throttle-group", id="tg0")
    file = {"driver": "file", "filename": "b.raw"}
    daemon("blockdev-add", driver="raw", node_name="raw", file=file)
    file = {"driver": "file", "filename": "over.qcow2"}
    backing = {
        "driver": "qcow2",
        "node-name": "q",
        "file": {"driver": "file", "filename": "a.qcow2"},
    }
    daemon("blockdev-add", driver="qcow2", node_name="over", file=file, backing=backing)
    daemon("blockdev-add", driver="null-co", node_name="null", size=MIB, read_zeroes=True)
    daemon("blockdev-add", driver="throttle", node_name="t", file="null", throttle_group="tg0")
    for node, bitmap in (("over", "b0"), ("raw", "b1")):
        daemon("block-dirty-bitmap-add", node=node, name=bitmap)


def said(transcript: list[tuple[str, Json]]) -> Said:
    """Return replies and each job's events, without times and how far an image's file has grown.

    After a reopen that failed QEMU may take the file that it did not get for a data file.
    """
    lines = conversation(transcript)
    for pattern, rest in (_TIME, r"\g<1>0"), (_FILE_SIZE, r'"virtual-size": "int"\1'), (_RAW, ""):
        lines = [pattern.sub(rest, line) for line in lines]
    return lines, events_by_job(transcript)


class Dealer:
    """Draws commands."""

    def __init__(self, schema: list[Json], seed: int, wild: float = 1.0) -> None:
        self.types = {entity["name"]: entity for entity in schema}
        self.random = random.Random(seed)
        self.wild = wild  # 1: much is refused; below that, less
        self.nodes = NODES[:5]  # that are there, most likely
        self.driver = self.command = ""  # what is being drawn
        self.commands = sorted(
            entity["name"]
            for entity in schema
            if entity["meta-type"] == "command" and entity["name"] not in LEFT_OUT
        )

    def draw(self) -> tuple[str, Json]:
        """Draw a command and its arguments."""
        self.command = self.random.choice(self.commands)
        if self.random.random() < 0.6:
            self.command = self.random.choice(_OFTEN)
        arguments = self._value(self.types[self.command]["arg-type"], "", 0)
        if self.random.random() < 0.12 * self.wild:
            self._spoil(arguments)
        if self.command == "blockdev-add":
            self.nodes = [*self.nodes, str(arguments.get("node-name"))][-9:]
        return self.command, arguments

    def _value(self, kind: str, member: str, depth: int) -> Json:
        entity = self.types[kind]
        return getattr(self, f"_{entity['meta-type']}")(entity, member, depth)

    def _builtin(self, entity: Json, member: str, depth: int) -> Json:
        match entity["json-type"]:
            case "string":
                return self._word(member)
            case "boolean":
                return self.random.random() < 0.5
            case "int":
                return self.random.choice(_FEW.get(member, _NUMBERS))
            case "null":
                return None
        return self.random.choice([1.5, "a", None, [], {}])

    def _word(self, member: str) -> str:
        words = _WORDS.get(member)
        if words is None:
            found = (names for start, names in _NAMES.items() if self.command.startswith(start))
            words = next(found, NODES)
        if words is NODES and self.random.random() > 0.3 * self.wild:
            new = member == "node-name" and self.command == "blockdev-add"
            words = NODES[5:] if new else self.nodes
        if self.random.random() < 0.06 * self.wild:
            words = STRANGE_FILES if words is FILES else STRANGE_NODES
        return self.random.choice(words)

    def _enum(self, entity: Json, member: str, depth: int) -> Json:
        values = [v for v in entity["values"] if v not in _LEFT_OUT_VALUES]
        return self.random.choice(_KINDS.get(member, values))

    def _array(self, entity: Json, member: str, depth: int) -> Json:
        return [
            self._value(entity["element-type"], member, depth + 1)
            for _ in range(self.random.choice([1, 1, 2, 2, 3]))
        ]

    def _alternate(self, entity: Json, member: str, depth: int) -> Json:
        kinds = [each["type"] for each in entity["members"]]
        simple = [kind for kind in kinds if self.types[kind]["meta-type"] != "object"]
        if member == "file" and self.driver in _FILES_OF and self.random.random() > 0.4 * self.wild:
            name = self.random.choice(_FILES_OF[self.driver])
            return {"driver": "file", "filename": name}
        if simple and (depth > 2 or self.random.random() < 0.6):
            kinds = simple
        return self._value(self.random.choice(kinds), member, depth)

    def _object(self, entity: Json, member: str, depth: int) -> Json:
        drawn = {}
        for each in entity["members"]:
            if "default" in each and not self._said(each["name"]):
                continue
            drawn[each["name"]] = self._value(each["type"], each["name"], depth + 1)
        if "tag" in entity:
            variants = {each["case"]: each["type"] for each in entity["variants"]}
            tag = entity["tag"]
            if self.command == "block-export-add" and tag == "type":
                drawn[tag] = "nbd"
            if drawn.get(tag) in variants:
                outer, self.driver = self.driver, str(drawn[tag]) if tag == "driver" else ""
                drawn |= self._value(variants[drawn[tag]], member, depth)
                self.driver = outer
        return drawn

    def _said(self, member: str) -> bool:
        """Decide on an optional member; some are needed in fact."""
        often = {"node-name": 0.9, "job-id": 0.97, "device": 0.5, "bitmap": 0.15}
        rare = {"filter-node-name": 0.1, "key-secret": 0.05, "cache": 0.1, "iothread": 0.05}
        return self.random.random() < (often | rare).get(member, 0.22 * self.wild)

    def _spoil(self, arguments: Json) -> None:
        place = arguments
        while True:
            inner = [value for value in place.values() if isinstance(value, dict)]
            if not inner or self.random.random() < 0.5:
                break
            place = self.random.choice(inner)
        match self.random.randrange(4):
            case 0 if place:
                del place[self.random.choice(sorted(place))]
            case 1:
                place[self.random.choice(["unknown", "x-unknown", ""])] = 1
            case _ if place:
                wrong = self.random.choice([None, 1, "a", "1", [], {}, True, 1.5])
                place[self.random.choice(sorted(place))] = wrong
