"""qemu-img and blockemu-img: looking at large images, copying smaller ones."""

import os
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter

from daemon import BIN
from report import Report

GIB = 1 << 30
TOOLS = {"qemu-img": "qemu-img", "blockemu-img": str(BIN / "blockemu-img")}
FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def timed(*command: object) -> float:
    """Return the milliseconds a command takes."""
    began = perf_counter()
    subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)
    return (perf_counter() - began) * 1e3


def run(report: Report) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        folder = Path(name)
        large = folder / "large.qcow2"
        make = ["create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", large, "1T"]
        subprocess.run(["qemu-img", *make], check=True)
        report.section("An image of 1 TiB, preallocation=metadata")
        for arguments in (("map", "--output=json"), ("check",), ("info",)):
            variants = {
                tool: lambda path=path, arguments=arguments: timed(path, *arguments, large)
                for tool, path in TOOLS.items()
            }
            report.compare(" ".join(arguments), variants, "ms", rounds=3)
        large.unlink()
        report.section("convert of 1 GiB of random data")
        raw, image = folder / "disk.raw", folder / "disk.qcow2"
        raw.write_bytes(os.urandom(GIB))
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, image], check=True)
        target = folder / "target"
        for title, source, kind in (("raw to qcow2", raw, "qcow2"), ("qcow2 to raw", image, "raw")):
            variants = {
                tool: lambda path=path, source=source, kind=kind: timed(
                    path, "convert", "-O", kind, source, target
                )
                for tool, path in TOOLS.items()
            }
            report.compare(title, variants, "ms", rounds=3)
            target.unlink()
