"""Older versions' interfaces: QEMU 7.2's own, with what changed since taken back, and ours under --compat.

``qapi_changes.txt`` has the changes.  Commands and events that ours lacks are no matter here, but
those it has must agree to the last member, value and feature.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from compat.daemon import Blockemu, Daemon, StorageDaemon, System

from blockemu.qmp_server.outline import outline

VERSIONS = ["4.2", "5.2", "6.2", "7.2"]
CHANGES = Path(__file__).with_name("qapi_changes.txt")
REFERENCES = {"blockdev-add": "<BlockdevOptions>"}
NOT_OF_DISKS = {
    "GUEST_PANICKED",
    "MEMORY_DEVICE_SIZE_CHANGE",
    "MEM_UNPLUG_ERROR",
    "calc-dirty-rate",
    "chardev-add",
    "chardev-change",
    "expire_password",
    "netdev_add",
    "object-add",
    "query-colo-status",
    "query-cpu-definitions",
    "query-cpus-fast",
    "query-dirty-rate",
    "query-display-options",
    "query-hotpluggable-cpus",
    "query-machines",
    "query-memdev",
    "query-memory-devices",
    "query-qmp-schema",
    "query-sev-capabilities",
    "query-sgx",
    "query-sgx-capabilities",
    "query-spice",
    "query-stats-schemas",
    "query-target",
    "query-vnc",
    "screendump",
    "set-numa-node",
    "set_password",
    "x-colo-lost-heartbeat",
}
MIGRATION = re.compile("migrat", re.IGNORECASE)  # no record tells how that was in older versions
# A QEMU that is built without these tells of them nowhere: no record says since when they are there.
BUILD_OPTIONS = re.compile(r"\b(fuse|vduse-blk|vhost-user-blk)\b")
# Commands that name types of others: (command, its path) is like (command, its path).
ALIKE = [
    (("query-named-block-nodes", " RET[]"), ("query-block", " RET[].inserted?")),
    (("x-blockdev-reopen", " ARG"), ("blockdev-add", " ARG")),
]
FEATURES = re.compile(r" \[.*\]$")  # of a value: later versions may tell more of them
Lines = set[str]
Version = tuple[int, ...]


class Change(NamedTuple):
    version: Version
    command: str
    sign: str
    lines: Lines


def number(version: str) -> Version:
    return tuple(int(part) for part in version.split("."))


def changes() -> Iterator[Change]:
    """Read the changes, the oldest first."""
    version, command = "", ""
    for line in CHANGES.read_text().splitlines():
        if line.startswith("== "):
            version = line[3:]
        elif line.startswith("  "):
            sign, _, rest = line.strip().partition(" ")
            yield Change(number(version), command, sign, set(spread(rest)))
        elif line and not line.startswith("#"):
            command = line


def spread(text: str) -> Iterator[str]:
    """Yield the outline's lines that one line of the table stands for."""
    path, values, listed = text.partition(" = ")
    path, typed, kind = path.partition(" : ")
    path = path if path.startswith("@") else f" {path}"
    if values:
        yield from (f"{path}=^{value}" for value in listed.split(", "))
        return
    if path.strip():
        yield path
    if typed:
        yield f"{path}:{kind}"


def known_at(version: str, newest: dict[str, Lines]) -> dict[str, Lines | None]:
    """Return the outline of a version; None for a command that only older ones have."""
    known: dict[str, Lines | None] = {name: set(lines) for name, lines in newest.items()}
    for change in reversed(list(changes())):
        if change.version <= number(version):
            break
        lines = known.get(change.command)
        if change.sign == "NEW":
            known.pop(change.command, None)
        elif change.sign == "GONE":
            known[change.command] = None
        elif lines is not None and change.sign == "+":
            lines -= change.lines
        elif lines is not None:
            lines |= change.lines
    for (name, path), (model, model_path) in ALIKE:
        if name in known:
            lines = known[model]
            assert lines is not None
            kept = {line for line in known[name] or () if not line.startswith(path)}
            alike = {
                path + line[len(model_path) :] for line in lines if line.startswith(model_path)
            }
            known[name] = kept | alike - {path}
    return known


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Lines]]:
    """Give ``ask(kind, *options)``: a program's outline."""
    heard: dict[tuple[object, ...], dict[str, Lines]] = {}

    def asked(kind: type[Daemon], *options: str) -> dict[str, Lines]:
        if (kind, options) not in heard:
            with kind(tmp_path_factory.mktemp("versions"), *options) as daemon:
                found = outline(daemon("query-qmp-schema"), REFERENCES)
            heard[kind, options] = {name: set(lines) for name, lines in found.items()}
        return heard[kind, options]

    return asked


@pytest.mark.parametrize("version", VERSIONS)
def test_introspection_is_that_of_the_version(
    ask: Callable[..., dict[str, Lines]], program: Callable[[str], str], version: str
) -> None:
    program(StorageDaemon.kind)
    program(System.kind)
    theirs = known_at(version, ask(StorageDaemon) | ask(System))
    mine = ask(Blockemu, "--compat", version)
    differences = defaultdict(list)
    for name in sorted(mine.keys() - NOT_OF_DISKS):
        if name not in theirs:
            differences[name].append("is not in this version")
            continue
        real = theirs[name]
        if real is None or (version != VERSIONS[-1] and MIGRATION.search(name)):
            continue
        latest = version == VERSIONS[-1]
        more = (each for each in mine[name] - real if latest or not BUILD_OPTIONS.search(each))
        differences[name] += [f"only ours: {line}" for line in sorted(more)]
        lacking = (line for line in real - mine[name] if not BUILD_OPTIONS.search(line))
        differences[name] += [f"only theirs: {line}" for line in sorted(lacking)]
    assert {name: found for name, found in differences.items() if found} == {}


@pytest.mark.parametrize(
    ("command", "versions"),
    {
        "block-dirty-bitmap-remove": VERSIONS,
        "block_passwd": ["4.2", "5.2"],
        "change": ["4.2", "5.2"],
        "query-events": ["4.2", "5.2"],
        "x-blockdev-reopen": ["4.2", "5.2"],
        "blockdev-reopen": ["6.2", "7.2"],
        "block-export-add": ["5.2", "6.2", "7.2"],
        "x-blockdev-amend": ["5.2", "6.2", "7.2"],
        "nbd-server-add": VERSIONS,
        "BLOCK_EXPORT_DELETED": ["5.2", "6.2", "7.2"],
    }.items(),
)
def test_commands_come_and_go(
    ask: Callable[..., dict[str, Lines]], command: str, versions: list[str]
) -> None:
    have = [version for version in VERSIONS if command in ask(Blockemu, "--compat", version)]
    assert have == versions
    assert command in ask(Blockemu, "--compat", "all")


def test_all_hides_nothing(ask: Callable[..., dict[str, Lines]]) -> None:
    everything = ask(Blockemu, "--compat", "all")
    for version in VERSIONS:
        for name, lines in ask(Blockemu, "--compat", version).items():
            without_choice = {" ARG{nbd}.bitmaps?[]:string"}  # it became one of two
            kept = {FEATURES.sub("", line) for line in everything[name]}
            assert {FEATURES.sub("", line) for line in lines - without_choice} <= kept, (
                version,
                name,
            )
