"""What tests of checking share: the verdict of qemu-img check, and ours, on copies of an image."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import NamedTuple

from blockemu.check import CheckResult, Fix
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.images.errors import FormatError
from blockemu.node import Flags

FIX = {Fix.NOTHING: [], Fix.LEAKS: ["-r", "leaks"], Fix.ALL: ["-r", "all"]}
NAMES = {
    "corruptions": "corruptions",
    "leaks": "leaks",
    "check_errors": "check-errors",
    "image_end_offset": "image-end-offset",
    "total_clusters": "total-clusters",
    "allocated_clusters": "allocated-clusters",
    "compressed_clusters": "compressed-clusters",
    "fragmented_clusters": "fragmented-clusters",
}
SAYS_SO_ELSEWHERE = ("Check failed", "No errors were found")


class Verdict(NamedTuple):
    """What was found, in numbers; why there are none, if so; and the lines on standard error."""

    numbers: dict[str, int]
    failure: str
    lines: list[str]


def theirs(path: Path, fix: int = Fix.NOTHING, *, timeout: float = 60) -> Verdict:
    """Let qemu-img check an image."""
    command = ["qemu-img", "check", "-f", "qcow2", "--output=json", *FIX[fix], str(path)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace",
                          timeout=timeout)  # fmt: skip
    lines, failure = [], ""
    for line in done.stderr.splitlines():
        text = line.removeprefix("qemu-img: ")
        if text.startswith("Check failed"):
            failure = text.removeprefix("Check failed").removeprefix(": ")
        elif text.startswith("Could not open"):
            failure = text.split("': ", 1)[1]
        elif "force-remove" not in text or failure == "":
            lines.append(text)
    numbers = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return Verdict({k: numbers.get(v, 0) for k, v in NAMES.items()} if numbers else {}, failure,
                   lines)  # fmt: skip


async def ours(path: Path, fix: int = Fix.NOTHING) -> Verdict:
    """Check an image as blockemu-img does: once more if something was repaired."""
    emulator, told = Emulator(), io.StringIO()
    emulator.warnings = lambda text: told.write(f"warning: {text}\n") and None
    file = {"driver": "file", "filename": str(path)}
    options = {"driver": "qcow2", "read-only": fix == 0, "file": file, "discard": "ignore"}
    numbers: dict[str, int] = {}
    failure = ""
    with redirect_stderr(told):
        try:
            node = await emulator.opener.open(options, flags=Flags(check=True))
        except (QmpError, FormatError) as e:
            failure = str(e)
        else:
            node.holds += 1
            try:
                result = await node.check(fix)
                if result.corruptions_fixed or result.leaks_fixed:
                    result = await node.check(Fix.NOTHING)
                numbers = {name: getattr(result, name) for name in NAMES}
            except OSError as e:
                failure = os.strerror(e.errno or 0)
            finally:
                node.holds -= 1
                await emulator.graph.release(node)
        await emulator.close()
    prefix = f"{os.path.basename(sys.argv[0])}: "
    lines = [line.removeprefix(prefix) for line in told.getvalue().splitlines()]
    return Verdict(numbers, failure, lines)


async def compare(path: Path, fix: int = Fix.NOTHING) -> tuple[Verdict, Verdict]:
    """Check copies of an image by both; both copies are left beside it."""
    a, b = path.with_suffix(".theirs"), path.with_suffix(".ours")
    for copy in a, b:
        shutil.copyfile(path, copy)
    return theirs(a, fix), await ours(b, fix)


def sound(result: CheckResult) -> bool:
    """Tell whether nothing is wrong but leaks."""
    return not result.corruptions and not result.check_errors
