"""The NBD servers, pinned to one core in turn, under fio and nbdcopy."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

from qmp import Session
from report import OURS, REAL, Report

MIB = 1 << 20
SIZE = 256 * MIB
LOADS = {
    "4 KiB reads, depth 16": ("randread", "4k", 16),
    "4 KiB reads, depth 1": ("randread", "4k", 1),
    "4 KiB writes, depth 16": ("randwrite", "4k", 16),
    "1 MiB reads, depth 4": ("read", "1m", 4),
}
SERVER, CLIENT = {0}, {1}
FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def fio(uri: str, kind: str, size: str, depth: int, seconds: float = 2) -> float:
    """Return requests a second."""
    command = [
        *("fio", "--name=b", "--ioengine=nbd", f"--uri={uri}", f"--rw={kind}", f"--bs={size}"),
        *(f"--iodepth={depth}", f"--size={SIZE}", f"--runtime={seconds}", "--time_based"),
        *("--thread", "--randrepeat=1", "--norandommap", "--output-format=json"),
    ]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CLIENT if len(before) > 1 else before)
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    finally:
        os.sched_setaffinity(0, before)
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    return float(job["read"]["iops"] + job["write"]["iops"])


def copied(uri: str, length: int) -> float:
    """Return MiB a second of nbdcopy into nothing."""
    began = perf_counter()
    subprocess.run(["nbdcopy", uri, "null:"], check=True)
    return length / MIB / (perf_counter() - began)


def serve(stack: ExitStack, program: str, folder: Path) -> Callable[[str], str]:
    """Start a daemon with the disks exported; return what makes an export's URI."""
    session = stack.enter_context(Session(program, cpus=SERVER))
    path = folder / f"{program}.sock"
    session("nbd-server-start", {"addr": {"type": "unix", "data": {"path": str(path)}}})
    session.open("raw", folder / f"{program}.raw", "raw")
    session.open("qcow2", folder / f"{program}.qcow2")
    session("blockdev-add", driver="null-co", node_name="null", size=SIZE, read_zeroes=True)
    session.open("marked", folder / f"{program}.marked", "raw")
    session("block-dirty-bitmap-add", node="marked", name="b")
    for node in ("raw", "qcow2", "null", "marked"):
        session("block-export-add", type="nbd", id=node, node_name=node, writable=True)
    return lambda name: f"nbd+unix:///{name}?socket={path}"


def run(report: Report) -> None:
    """Measure each load on each disk."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as name, ExitStack() as stack:
        folder = Path(name)
        data = os.urandom(SIZE)
        for program in (REAL, OURS):
            (folder / f"{program}.raw").write_bytes(data)
            (folder / f"{program}.marked").write_bytes(data)
            source, target = folder / f"{program}.raw", folder / f"{program}.qcow2"
            subprocess.run(["qemu-img", "convert", "-O", "qcow2", source, target], check=True)
        uris = {program: serve(stack, program, folder) for program in (REAL, OURS)}
        for disk, loads in (
            ("raw", list(LOADS)),
            ("qcow2", list(LOADS)),
            ("marked", ["4 KiB writes, depth 16"]),
            ("null", ["4 KiB reads, depth 16", "1 MiB reads, depth 4"]),
        ):
            report.section(f"NBD: {disk}")
            for load in loads:
                variants = {
                    program: lambda uri=uri, load=load: fio(uri(disk), *LOADS[load])  # noqa: B023
                    for program, uri in uris.items()
                }
                report.compare(load, variants, "op/s", rounds=3, more_is_better=True)
        report.section("NBD: nbdcopy of the raw disk")
        copies = {p: lambda uri=uri: copied(uri("raw"), SIZE) for p, uri in uris.items()}
        report.compare("to null:", copies, "MiB/s", rounds=3, more_is_better=True)
