"""What the documents show works: their code is run, from a distribution outside this tree."""

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "new-driver.md"
USE = """
import asyncio
from blockemu.backend import Backend
from blockemu.emulator import Emulator
from blockemu.perm import Perm

async def main():
    emu = Emulator()
    ones = {"driver": "ones", "size": 4096}
    node = await emu.opener.open({"driver": "shift", "offset": 512, "file": ones})
    backend = Backend(perm=Perm.CONSISTENT_READ)
    emu.graph.insert(backend, node)
    buf = bytearray(4)
    await backend.pread(0, memoryview(buf))
    print(backend.length, buf.hex())
    await emu.close()

asyncio.run(main())
"""


def code_of(page):
    """Return the Python blocks of a page by the name that their docstring begins with."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return {re.match(r'"""(\w+):', block).group(1): block for block in blocks}


def test_the_documented_drivers_work_from_a_distribution_of_their_own(tmp_path):
    blocks = code_of(PAGE)
    assert set(blocks) == {"ones", "shift"}
    info = tmp_path / "documented-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: documented\nVersion: 1\n")
    entries = [f"{name} = documented_{name}" for name in blocks]
    (info / "entry_points.txt").write_text("\n".join(["[blockemu.drivers]", *entries]))
    for name, block in blocks.items():
        (tmp_path / f"documented_{name}.py").write_text(block)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", USE],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("3584 ffffffff\n", "")


def test_the_documented_crashes_leave_what_the_page_says(tmp_path):
    page = DOCS / "crash-testing.md"
    (block,) = code_of(page).values()
    (printed,) = re.findall(r"^It prints `(.*)`:", page.read_text(), re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.returncode) == (f"{printed}\n", 0)
