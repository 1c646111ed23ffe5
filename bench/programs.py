"""What is run beside the daemons: tools, loads, and the images they work on."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from daemon import BIN
from report import Missing, Sample

KIB, MIB, GIB, TIB = (1 << shift for shift in (10, 20, 30, 40))
IMG = {"qemu-img": "qemu-img", "blockemu-img": str(BIN / "blockemu-img")}
FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
ONE_CPU = {max(os.sched_getaffinity(0))}
LIMIT = 180  # seconds that anything may take; whatever takes longer has failed


def need(program: str) -> str:
    """Return the program's name if it is installed."""
    if shutil.which(program) is None:
        raise Missing(f"{program} is not installed: sh tools/install-programs.sh bench")
    return program


@contextmanager
def on(cpus: Iterable[int]) -> Iterator[None]:
    """Run this process and what it starts on ``cpus``."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def quietly(*command: object) -> None:
    """Run a program that is not measured."""
    subprocess.run(
        [*map(str, command)], check=True, stdout=subprocess.DEVNULL, timeout=LIMIT, text=True
    )


def timed(*command: object) -> Sample:
    """Return the milliseconds a program takes, and its seconds of processor time."""
    began = perf_counter()
    with subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        spent = perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return Sample(spent * 1e3, usage.ru_utime + usage.ru_stime)


def cpu(pid: int) -> float:
    """Return the processor time that a process has had, all its threads', in seconds."""
    from time import clock_gettime

    return clock_gettime(~pid << 3 | 2)  # as clock_getcpuclockid(3) makes it


def resident(pid: int) -> float:
    """Return how much memory a process has, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


def fio_command(uri: str, kind: str, size: str, depth: int, span: int, seconds: float) -> list[str]:
    """Return the command of a load."""
    return [
        *(need("fio"), "--name=b", "--ioengine=nbd", f"--uri={uri}", f"--rw={kind}"),
        *(
            f"--bs={size}",
            f"--iodepth={depth}",
            f"--size={span}",
            f"--runtime={seconds * 1e3:.0f}ms",
        ),
        *("--time_based", "--thread", "--randrepeat=1", "--norandommap", "--output-format=json"),
    ]


def rate(output: str) -> float:
    """Return the requests a second that fio tells of."""
    job = json.loads(output[output.index("{") :])["jobs"][0]
    if job["error"]:
        raise RuntimeError(f"fio: error {job['error']}")
    return float(job["read"]["iops"] + job["write"]["iops"])


def requests(output: str) -> int:
    """Return how many requests fio tells of."""
    job = json.loads(output[output.index("{") :])["jobs"][0]
    return int(job["read"]["total_ios"] + job["write"]["total_ios"])


def fio(
    uri: str, load: tuple[str, str, int], span: int, server: int, seconds: float = 0.5
) -> Sample:
    """Put a load (kind, size, depth) on an export; return requests/s, and the server's CPU."""
    before = cpu(server)
    done = subprocess.run(
        fio_command(uri, *load, span, seconds),
        check=True,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    return Sample(rate(done.stdout), (cpu(server) - before) / requests(done.stdout))


def qcow2(path: Path, size: int, *options: object) -> Path:
    """Make an empty image in place of what there is."""
    path.unlink(missing_ok=True)
    quietly("qemu-img", "create", "-q", "-f", "qcow2", *options, path, size)
    return path


def convert(source: Path, kind: str, target: Path, *options: object) -> Path:
    """Copy an image."""
    quietly("qemu-img", "convert", "-O", kind, *options, source, target)
    return target


SECRET = "pass phrase"


def luks(path: Path, source: Path) -> Path:
    """Make an encrypted copy of a raw disk, its key slot soon opened."""
    given = ("--object", f"secret,id=s,data={SECRET}")
    size = source.stat().st_size
    options = "key-secret=s,iter-time=10,cipher-alg=aes-256"
    quietly("qemu-img", "create", "-q", *given, "-f", "luks", "-o", options, path, size)
    target = f"driver=luks,key-secret=s,file.filename={path}"
    quietly("qemu-img", "convert", *given, "-n", "--target-image-opts", "-f", "raw", source, target)
    return path
