"""What opens an image and what shows it: the same names as in the real daemon's replies."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import StorageDaemon

from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.images.errors import FormatError
from blockemu.images.qcow2.new import new_image

Json = Any


def _qcow2(path: Path, backing: str | None = None, fmt: str | None = None) -> None:
    path.write_bytes(new_image(65536, backing_file=backing, backing_format=fmt))


def prepare(folder: Path) -> None:
    """Make images whose headers name their backing files in many ways."""
    (folder / "dir").mkdir()
    for name in ("base.raw", "dir/base.raw", "a:b.raw", "dir/a:b.raw", 'odd\tname"é.raw'):
        (folder / name).write_bytes(bytes(65536))
    _qcow2(folder / "base.qcow2")
    _qcow2(folder / "dir/base.qcow2")
    for number, (backing, fmt) in enumerate(BACKING):
        backing = backing.replace("$DIR", str(folder))
        _qcow2(folder / f"b{number}.qcow2", backing, fmt)
        _qcow2(folder / f"dir/b{number}.qcow2", backing, fmt)
    _qcow2(folder / "deep.qcow2", "dir/b0.qcow2", "qcow2")


BACKING = [
    ("base.raw", "raw"),
    ("base.qcow2", "qcow2"),
    ("dir/base.qcow2", "qcow2"),
    ("$DIR/base.raw", "raw"),
    ("$DIR/dir/../base.raw", "raw"),
    ("./base.raw", "raw"),
    ("../base.raw", "raw"),
    ("file:base.raw", "raw"),
    ("file:./base.raw", "raw"),
    ("file:$DIR/base.raw", "raw"),
    ("a:b.raw", "raw"),
    ("./a:b.raw", "raw"),
    ("file:a:b.raw", "raw"),
    ("file:file:a:b.raw", "raw"),
    ("null-co://", "raw"),
    ("null-co://x", "raw"),
    ("null-aio://", "raw"),
    ("null-co:", "raw"),
    ("nosuch:thing", "raw"),
    (":", "raw"),
    ("json:", "raw"),
    ("json:{", "raw"),
    ("json:[]", "raw"),
    ("json:{}", "raw"),
    ("json:{} {}", "raw"),
    ("json:1", "raw"),
    ("json:{'driver':'null-co'}", "null-co"),
    ("json:{'driver':'raw','file':{'driver':'null-co','size':65536}}", "raw"),
    ("json:{'driver':'raw','file.driver':'null-co','file.size':65536,'file.read-zeroes':'on'}", "raw"),
    ("json:{'driver':'raw','file':{'driver':'file','filename':'base.raw'}}", "raw"),
    ("json:{'driver':'raw','file':{'driver':'file','filename':'base.raw'},'offset':512}", "raw"),
    ("json:{'driver':'raw','offset':'0','size':'512','file.driver':'file','file.filename':'base.raw'}", "raw"),
    ("json:{'driver':'raw','file':{'filename':'base.raw'}}", "raw"),
    ("json:{'driver':'raw','file':{'filename':'json:{}'}}", "raw"),
    ("json:{'driver':'raw','file':{'filename':'file:base.raw'}}", "raw"),
    ("json:{'driver':'raw','file':{'filename':'nosuch:base.raw'}}", "raw"),
    ("json:{'driver':'qcow2','file':{'driver':'file','filename':'base.qcow2'}}", "qcow2"),
    ("json:{'driver':'qcow2','lazy-refcounts':true,'file.filename':'base.qcow2'}", "qcow2"),
    ("json:{'driver':'nosuch'}", "raw"),
    ("json:{'file':'nosuch'}", "raw"),
    ("json:{'driver':'raw','file':{'driver':'null-co','bogus':1}}", "raw"),
    ("json:{'driver':'raw','bogus':1,'file.driver':'null-co'}", "raw"),
    ("json:{'driver':'raw'}", "raw"),
    ("absent.raw", "raw"),
    ("dir", "raw"),
    ("/dev/null", "raw"),
    ("host_device:/dev/null", "raw"),
    ("file:/dev/null", "raw"),
    ("odd\tname\"é.raw", "raw"),
    ("base.raw", "qcow2"),
    ("base.qcow2", "nosuch"),
    ("b46.qcow2", "qcow2"),
]  # fmt: skip


def _file(name: str, **more: Json) -> Json:
    return {"driver": "file", "filename": name, **more}


GRAPHS: list[list[Json]] = [
    [_file(name)]
    for name in ("base.raw", "./base.raw", "dir/../base.raw", "$DIR/base.raw", "a:b.raw", "file:a",
                 "json:{}", "odd\tname\"é.raw", "", "absent", "dir", "/dev/null", "a\0b", "x" * 256)
] + [
    [{"driver": "null-co"}],
    [{"driver": "null-aio", "latency-ns": 1}],
    [{"driver": "null-co", "read-zeroes": False}],
    [{"driver": "null-aio", "size": 65536, "read-zeroes": True, "latency-ns": 7}],
    [{"driver": "raw", "file": _file("base.raw")}],
    [{"driver": "raw", "offset": 0, "file": _file("base.raw")}],
    [{"driver": "raw", "size": 512, "file": _file("base.raw")}],
    [{"driver": "raw", "offset": 512, "size": 512, "file": _file("base.raw", locking="off")}],
    [{"driver": "raw", "file": {"driver": "raw", "file": _file("base.raw")}}],
    [{"driver": "raw", "file": {"driver": "raw", "offset": 512, "file": _file("base.raw")}}],
    [{"driver": "raw", "file": {"driver": "null-co"}}],
    [{"driver": "raw", "file": {"driver": "null-co", "size": 1024}}],
    [{"driver": "raw", "read-only": True, "file": {"driver": "qcow2", "file": _file("base.qcow2")}}],
    [{"driver": "host_device", "filename": "/dev/null"}],
    [{"driver": "raw", "file": {"driver": "host_device", "filename": "/dev/null"}}],
    [{"driver": "host_device", "filename": "base.raw"}],
    [{"driver": "host_cdrom", "filename": "/dev/null"}],
    [{"driver": "qcow2", "file": _file("base.qcow2")}],
    [{"driver": "qcow2", "file": _file("b0.qcow2"), "backing": None}],
    [{"driver": "qcow2", "file": _file("b0.qcow2"), "backing": {"driver": "null-co"}}],
    [{"driver": "qcow2", "file": _file("b0.qcow2"), "backing": {"driver": "raw", "file": _file("base.raw")}}],
    [{"driver": "qcow2", "file": _file("base.qcow2"), "backing": {"driver": "null-co", "size": 512}}],
    [_file("base.raw", **{"node-name": "low"}), {"driver": "raw", "file": "low"}],
    [_file("base.raw", **{"node-name": "low"}), {"driver": "qcow2", "file": _file("b0.qcow2"), "backing": "low"}],
    [{"driver": "qcow2", "file": {"driver": "raw", "file": _file("base.qcow2")}}],
    [{"driver": "qcow2", "file": {"driver": "raw", "size": 65536 * 4, "file": _file("base.qcow2")}}],
    [{"driver": "qcow2", "file": _file("$DIR/dir/b1.qcow2")}],
    [{"driver": "qcow2", "file": _file("deep.qcow2")}],
    [{"driver": "raw", "file": {"driver": "raw", "file": _file("base.raw")}, "offset": 512, "size": 1024}],
] + [
    [{"driver": "qcow2", "file": _file(f"{folder}b{number}.qcow2")}]
    for number in range(len(BACKING))
    for folder in ("", "dir/")
]  # fmt: skip


def _at(graph: list[Json], folder: Path) -> list[Json]:
    text = json.dumps(graph).replace("$DIR", str(folder))
    return [{"node-name": f"top{i}", **node} for i, node in enumerate(json.loads(text))]


def _theirs(daemon: StorageDaemon, graph: list[Json]) -> Json:
    for options in graph:
        answer = daemon.execute("blockdev-add", options)
        if "error" in answer:
            break
    nodes = daemon("query-named-block-nodes", flat=True)
    for options in reversed(graph):
        daemon.execute("blockdev-del", node_name=options["node-name"])
    return answer.get("error"), [_named(n["drv"], n["file"], n["image"]["filename"]) for n in nodes]


def _named(driver: str, file: str, filename: str) -> tuple[str, str]:
    assert file == filename
    return driver, filename


async def _ours(graph: list[Json]) -> Json:
    emulator = Emulator()
    emulator.warnings = lambda text: None
    error = None
    try:
        for options in graph:
            plain = {"read-only": False, **options}
            plain["cache"] = {"direct": False, "no-flush": False, **plain.get("cache", {})}
            node = await emulator.opener.open(plain)
            node.monitor_owned = True
    except (QmpError, FormatError) as e:
        error = {"class": "GenericError", "desc": str(e)}
    nodes = [(node.driver, node.full_filename) for node in emulator.graph]
    for node in list(emulator.graph):
        if node.monitor_owned:
            await emulator.graph.delete(node)
    await emulator.close()
    return error, nodes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("names")
    prepare(path)
    return path


@pytest.fixture(scope="module")
def daemon(folder: Path, program: Any) -> Any:
    program("qemu-storage-daemon")
    with StorageDaemon(folder) as daemon:
        yield daemon


def _case(graph: list[Json]) -> str:
    name = graph[-1].get("file", {}) if isinstance(graph[-1].get("file", {}), dict) else {}
    number = name["filename"].rpartition("b")[2].partition(".")[0] if "filename" in name else ""
    return (
        f"{graph[-1]['file']['filename']} {BACKING[int(number)][0]}"[:90]
        if number.isdigit()
        else json.dumps(graph[-1])[:90]
    )


@pytest.mark.parametrize("graph", GRAPHS, ids=_case)
def test_a_node_is_named_and_refused_as_the_real_daemon_does(
    graph: list[Json], folder: Path, daemon: StorageDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    theirs = _theirs(daemon, _at(graph, folder))
    assert asyncio.run(_ours(_at(graph, folder))) == theirs
