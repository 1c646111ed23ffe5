"""The NBD servers under fio, client and server on one core."""

import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from programs import FOLDER, GIB, MIB, ONE_CPU, convert, fio, luks, on, qcow2, quietly
from qmp import Session
from report import OURS, REAL, Goal, Measure, Report

SIZE = 256 * MIB
PROGRAMS = (REAL, OURS)
LOADS = {
    "4 KiB reads, depth 1": ("randread", "4k", 1),
    "4 KiB reads, depth 16": ("randread", "4k", 16),
    "4 KiB writes, depth 1": ("randwrite", "4k", 1),
    "4 KiB writes, depth 16": ("randwrite", "4k", 16),
    "1 MiB reads, depth 1": ("read", "1m", 1),
    "1 MiB reads, depth 16": ("read", "1m", 16),
    "1 MiB writes, depth 1": ("write", "1m", 1),
    "1 MiB writes, depth 16": ("write", "1m", 16),
}
R1, R16, W1, W16, MR1, MR16, MW1, MW16 = LOADS
# The goals, as ratios to the real daemon.
GOALS = {
    "raw": {R1: 1.4, R16: 1.8, W1: 1.4, W16: 1.7, MR1: 1.8, MR16: 1.8, MW1: 1.8, MW16: 1.8},
    "qcow2": dict.fromkeys((R16, W16), 1.5),
    "backed": {},
    "luks": dict.fromkeys((R16, W16), 1.5) | dict.fromkeys((MR1, MR16, MW1, MW16), 2.5),
    "null": dict.fromkeys(LOADS, 1.0),
}
TITLES = {
    "raw": "a raw disk",
    "qcow2": "a qcow2 disk, all allocated, warm",
    "backed": "a qcow2 disk with a backing file, half in each",
    "luks": "a LUKS volume, aes-256-xts",
    "null": "null-co that reads zeroes",
}


@dataclass(frozen=True)
class Server:
    """A daemon that exports, and where."""

    session: Session
    uri: Callable[[str], str]

    def fio(self, disk: str, load: str) -> Measure:
        """Return what takes one sample."""
        return lambda: fio(self.uri(disk), LOADS[load], SIZE, self.session.pid)


def disks(folder: Path) -> None:
    """Make one of each disk."""
    raw = folder / "raw"
    raw.write_bytes(os.urandom(SIZE))
    convert(raw, "qcow2", folder / "qcow2")
    qcow2(folder / "backed", SIZE, "-b", folder / "qcow2", "-F", "qcow2")
    halves = [("-c", f"write -q -P 7 {at} {MIB}") for at in range(0, SIZE, 2 * MIB)]
    quietly("qemu-io", "-f", "qcow2", *sum(halves, ()), folder / "backed")
    luks(folder / "luks", raw)


def add_idle(session: Session) -> None:
    """Put filters that have nothing to do over disks of their own."""
    session("object-add", {"qom-type": "throttle-group", "id": "g"})
    throttle = {"driver": "throttle", "throttle-group": "g", "file": "raw"}
    session("blockdev-add", throttle | {"node-name": "throttle"})
    session("blockdev-add", {"driver": "blkdebug", "node-name": "blkdebug", "image": "raw"})


def serve(stack: ExitStack, program: str, folder: Path, made: Path) -> Server:
    """Start a daemon on copies of the disks; those with marks and the idle filters are raw."""
    session = stack.enter_context(Session(program, cpus=ONE_CPU))
    uri = session.serve(folder / f"{program}.sock")
    for name in ("raw", "qcow2", "backed", "luks"):
        path = folder / f"{program}.{name}"
        shutil.copyfile(made / name, path)
        session.open(name, path, "qcow2" if name == "backed" else name)
        session.export(name, writable=True)
    session("blockdev-add", driver="null-co", node_name="null", size=SIZE, read_zeroes=True)
    session.export("null", writable=True)
    return Server(session, uri)


def marked(server: Server, count: int) -> None:
    """Put bitmaps on the raw disk."""
    have = server.session("query-named-block-nodes", flat=True)
    [node] = [node for node in have if node["node-name"] == "raw"]
    for number in range(len(node.get("dirty-bitmaps", [])), count):
        server.session("block-dirty-bitmap-add", node="raw", name=f"b{number}")


class Idle:
    """Connections that have shaken hands and say nothing."""

    HELLO, REPLY = 18, 10  # bytes

    def __init__(self, path: Path, export: str, count: int) -> None:
        self.sockets = [self._connect(path, export) for _ in range(count)]

    def _connect(self, path: Path, export: str) -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(20)
        one.connect(str(path))
        self._take(one, self.HELLO)
        name = export.encode()
        option = struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, len(name)) + name
        one.sendall(option)
        self._take(one, self.REPLY)
        return one

    @staticmethod
    def _take(one: socket.socket, length: int) -> None:
        while length:
            got = one.recv(length)
            if not got:
                raise RuntimeError("hung up on")
            length -= len(got)

    def close(self) -> None:
        """Hang up."""
        for one in self.sockets:
            one.close()


def idle_connections(program: str, folder: Path) -> float:
    """Return the MiB that 64 idle clients cost."""
    with Session(program) as session:
        session("blockdev-add", driver="null-co", node_name="null", size=GIB)
        path = folder / "idle.sock"
        session.serve(path, "null")
        Idle(path, "null", 1).close()  # what is imported late is, now
        session("query-block-exports")
        before = session.memory
        clients = Idle(path, "null", 64)
        session("query-block-exports")
        grown = session.memory - before
        clients.close()
        path.unlink(missing_ok=True)
        return max(grown, 0.01)


def loads(report: Report, servers: dict[str, Server], disk: str, goals: dict[str, float]) -> None:
    """Put all loads on a disk."""
    for load in LOADS:
        variants = {program: server.fio(disk, load) for program, server in servers.items()}
        goal = Goal(ratio=goals[load]) if load in goals else None
        report.compare(load, variants, "op/s", more_is_better=True, goal=goal)


def on_disk(report: Report, servers: dict[str, Server]) -> None:
    """Put loads on a file full of data, and on one that is a single hole."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:  # where a disk is, mostly
        for program, server in servers.items():
            for disk, data in (("full", os.urandom(SIZE)), ("hole", b"")):
                path = Path(name, f"{program}.{disk}")
                path.write_bytes(data)
                os.truncate(path, SIZE)
                server.session.open(disk, path, "raw")
                server.session.export(disk, writable=True)
        for disk, some in (("full", (R1, R16, W1, W16)), ("hole", (R1, R16))):
            for load in some:
                variants = {program: server.fio(disk, load) for program, server in servers.items()}
                report.compare(f"{disk}: {load}", variants, "op/s", more_is_better=True)
        for server in servers.values():
            for disk in ("full", "hole"):
                server.session("block-export-del", id=disk, mode="hard")
                server.session("blockdev-del", node_name=disk)


def run(report: Report) -> None:
    """Measure each load on each disk."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as name, ExitStack() as stack:
        folder, made = Path(name), Path(name, "made")
        made.mkdir()
        disks(made)
        stack.enter_context(on(ONE_CPU))
        servers = {program: serve(stack, program, folder, made) for program in PROGRAMS}
        for disk, title in TITLES.items():
            with report.section(f"NBD: {title}; client and server on one core"):
                loads(report, servers, disk, GOALS[disk])
        with report.section("NBD: a raw disk below filters that have nothing to do"):
            for server in servers.values():
                add_idle(server.session)
                for name in ("throttle", "blkdebug"):
                    server.session.export(name)
            for name in ("throttle", "blkdebug"):
                for load in (R1, R16):
                    variants = {p: server.fio(name, load) for p, server in servers.items()}
                    report.compare(f"{name}: {load}", variants, "op/s", more_is_better=True)
                    ours = servers[OURS]
                    kept = {"without": ours.fio("raw", load), "with": ours.fio(name, load)}
                    report.compare(
                        f"{name}: {load}, ours without and with it",
                        kept, "op/s", more_is_better=True, goal=Goal(ratio=0.8),
                    )  # fmt: skip
            for server in servers.values():
                for name in ("throttle", "blkdebug"):
                    server.session("block-export-del", id=name, mode="hard")
                    server.session("blockdev-del", node_name=name)
        for count in (1, 4):
            with report.section(f"NBD: a raw disk with {count} dirty bitmaps"):
                for server in servers.values():
                    marked(server, count)
                for load in (R16, W1, W16, MW16):
                    variants = {p: server.fio("raw", load) for p, server in servers.items()}
                    goal = Goal(ratio=1.5) if load == W16 else None
                    report.compare(load, variants, "op/s", more_is_better=True, goal=goal)
        with report.section("NBD: a raw file on a disk; client and server on one core"):
            on_disk(report, servers)
        with report.section("NBD: 64 idle connections"):
            variants = {
                program: lambda program=program: idle_connections(program, folder)
                for program in PROGRAMS
            }
            report.compare("memory", variants, "MiB", rounds=2, goal=Goal(most=10))
