"""Encrypted volumes: the luks node at 1 MiB requests, and convert, against qemu-img convert."""

import asyncio
import os
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from programs import FOLDER, IMG, MIB, ONE_CPU, SECRET, luks, on, timed
from report import Goal, Measure, Report, Sample

from blockemu.perm import Perm
from blockemu.testing import running

SIZE = 512 * MIB
GIVEN = ("--object", f"secret,id=s,data={SECRET}")


def through_node(path: Path, *, writing: bool) -> Sample:
    """Read or write a volume through the luks node, 1 MiB at a time, in this process; MiB/s."""

    async def go() -> Sample:
        async with running(self_check=False) as emu:
            await emu.execute("object-add", {"qom-type": "secret", "id": "s", "data": SECRET})
            file = {"driver": "file", "filename": str(path)}
            options = {"driver": "luks", "node-name": "d", "key-secret": "s", "file": file}
            await emu.execute("blockdev-add", options)
            async with emu.guest("d", Perm.CONSISTENT_READ | Perm.WRITE) as guest:
                buffer = np.ones(MIB, np.uint8).data
                cpu, began = process_time(), perf_counter()
                for offset in range(0, SIZE, MIB):
                    if writing:
                        await guest.pwrite(offset, buffer)
                    else:
                        await guest.pread(offset, buffer)
                spent = perf_counter() - began
                return Sample(SIZE / MIB / spent, process_time() - cpu)

    return asyncio.run(go())


def tool(path: str, *arguments: object) -> Sample:
    """Return MiB a second of a tool that copies the volume."""
    spent, cpu = timed(path, "convert", *GIVEN, *arguments)
    return Sample(SIZE / MIB / spent * 1e3, cpu)


def run(report: Report) -> None:
    """Measure reading and writing, by the node and by the tools."""
    with (
        report.section("LUKS, aes-256-xts; all on one core"),
        tempfile.TemporaryDirectory(dir=FOLDER) as name,
        on(ONE_CPU),
    ):
        raw, volume = Path(name, "raw"), Path(name, "luks")
        with raw.open("wb") as file:
            for _ in range(SIZE // MIB):
                file.write(os.urandom(MIB))
        luks(volume, raw)
        encrypted = f"driver=luks,key-secret=s,file.filename={volume}"
        null = f"driver=null-co,size={SIZE},read-zeroes=on"
        arguments = {
            "read": ("-n", "--image-opts", "--target-image-opts", encrypted, null),
            "write": ("-n", "-f", "raw", "--target-image-opts", raw, encrypted),
        }
        for way, given in arguments.items():
            variants: dict[str, Measure] = {
                "qemu-img": lambda given=given: tool("qemu-img", *given),
                "node": lambda way=way: through_node(volume, writing=way == "write"),
            }
            report.compare(
                f"{way}s of 1 MiB by the node, qemu-img convert", variants, "MiB/s",
                rounds=3, more_is_better=True, goal=Goal(ratio=2.5),
            )  # fmt: skip
        for way, given in arguments.items():
            variants = {
                tool_name: lambda path=path, given=given: tool(path, *given)
                for tool_name, path in IMG.items()
            }
            title = f"convert, {'from' if way == 'read' else 'to'} the volume"
            goal = Goal(ratio=0.9)
            report.compare(title, variants, "MiB/s", rounds=3, more_is_better=True, goal=goal)
