"""VDI images are made, read, written and refused as by QEMU."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest
from compat.daemon import Both, Daemon

from blockemu.backend import Backend
from blockemu.check import CheckResult
from blockemu.creation import img_create
from blockemu.emulator import Emulator
from blockemu.images.vdi import BLOCK, Header
from blockemu.perm import Perm

SIZE = 7000 << 10
UUIDS = slice(392, 424)  # bytes that are random in a new image


def run(*command: object) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    return done.stdout


async def create(path: Path, size: int = SIZE, options: str = "") -> None:
    emulator = Emulator()
    await img_create(emulator.opener, str(path), "vdi", options_text=options or None, size=size)
    await emulator.close()


def without_uuids(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[UUIDS] = bytes(32)
    return bytes(data)


@pytest.mark.parametrize("static", ["on", "off"])
@pytest.mark.parametrize("size", [0, 1, 1 << 20, SIZE, 300 << 20])
async def test_a_fresh_image_is_qemus_but_for_its_uuids(tmp_path, program, static, size):
    program("qemu-img")
    mine, real = tmp_path / "mine", tmp_path / "real"
    options = f"static={static}"
    run("qemu-img", "create", "-q", "-f", "vdi", "-o", options, real, size)
    await create(mine, size, options)
    assert without_uuids(mine) == without_uuids(real)
    assert mine.read_bytes()[UUIDS] != bytes(32)
    assert mine.stat().st_blocks == real.stat().st_blocks


@pytest.mark.parametrize("static", ["on", "off"])
@pytest.mark.parametrize("seed", range(4))
async def test_written_to_it_is_what_qemu_makes_of_it(tmp_path, program, static, seed):
    program("qemu-io")
    mine, real = tmp_path / "mine", tmp_path / "real"
    rng, commands, writes = random.Random(seed), [], []
    for _ in range(12):
        offset = rng.randrange(SIZE) // 512 * 512
        length = min(rng.choice([512, 4096, BLOCK, 3 * BLOCK]), SIZE - offset)
        writes.append((offset, length, rng.randrange(1, 255)))
        commands += ["-c", "write -q -P {2} {0} {1}".format(*writes[-1])]
    run("qemu-img", "create", "-q", "-f", "vdi", "-o", f"static={static}", real, SIZE)
    run("qemu-io", "-f", "vdi", *commands, "-c", "write -q -z 0 1M", real)
    await create(mine, SIZE, f"static={static}")
    emulator = Emulator()
    file = {"driver": "file", "filename": str(mine)}
    node = await emulator.opener.open({"driver": "vdi", "read-only": False, "file": file})
    backend = Backend("guest", Perm.ALL, Perm.ALL)
    emulator.graph.insert(backend, node)
    for offset, length, pattern in writes:
        await backend.pwrite(offset, bytes([pattern]) * length)
    await backend.write_zeroes(0, 1 << 20)
    runs = [tuple(run) async for part in backend.extents(0, SIZE) for run in part.merged()]
    data = bytearray(SIZE)
    await backend.pread(0, data)
    assert await node.check(0) == CheckResult()
    await emulator.graph.remove(backend)
    await emulator.close()
    assert without_uuids(mine) == without_uuids(real)
    run("qemu-img", "check", "-f", "vdi", mine)
    run("qemu-img", "convert", "-f", "vdi", "-O", "raw", real, tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes() == data
    told = json.loads(run("qemu-img", "map", "--output=json", "-f", "vdi", real))
    expected = [(e["start"], e["length"], e["zero"], e["data"]) for e in told]
    assert [(at, n, bool(s & 2), bool(s & 1)) for at, n, s, _ in runs] == expected


FIELDS = {
    "disk_size": [1 << 60, SIZE + 1, SIZE + BLOCK],
    "signature": [0, 0xBEDA107E],
    "version": [0x00010000, 0x00020003],
    "offset_bmap": [513, 1024],
    "offset_data": [1000],
    "sector_size": [0, 4096],
    "block_size": [0, 65536],
    "blocks_in_image": [0, 1, 0x20000000],
    "uuid_link": [bytes(15) + b"x"],
    "uuid_parent": [b"x" * 16],
    "image_type": [3],
}


def test_what_qemu_refuses_to_open_is_refused_in_its_words(both: Both, tmp_path: Path) -> None:
    images = [(name, i, v) for name, values in FIELDS.items() for i, v in enumerate(values)]

    def prepare(folder: Path) -> None:
        run("qemu-img", "create", "-q", "-f", "vdi", folder / "good", SIZE)
        good = (folder / "good").read_bytes()
        for name, i, value in images:
            header = Header.unpack(good)
            setattr(header, name, value)
            (folder / f"{name}{i}").write_bytes(header.pack() + good[512:])
        (folder / "short").write_bytes(good[:100])
        (folder / "cut").write_bytes(good[:512])

    def script(daemon: Daemon) -> None:
        for name in ("good", "short", "cut", *(f"{name}{i}" for name, i, _ in images)):
            file = {"driver": "file", "filename": name}
            daemon.execute("blockdev-add", {"driver": "vdi", "node-name": "n", "file": file})
            daemon.execute("query-named-block-nodes")
            daemon.execute("blockdev-del", {"node-name": "n"})

    both(script, prepare=prepare)


@pytest.mark.parametrize(
    ("entries", "allocated"),
    [({0: 0, 1: 0}, 2), ({0: 9}, 1), ({0: 1, 3: 2}, 5), ({5: 0, 6: 0, 2: 0}, 1)],
)
async def test_damage_is_told_as_by_qemu(tmp_path, program, capfd, entries, allocated):
    program("qemu-img")
    path = tmp_path / "image"
    await create(path)
    data = bytearray(path.read_bytes())
    header = Header.unpack(data)
    header.blocks_allocated = allocated
    data[:512] = header.pack()
    for block, place in entries.items():
        data[512 + 4 * block : 516 + 4 * block] = place.to_bytes(4, "little")
    path.write_bytes(data)
    command = ["qemu-img", "check", "-f", "vdi", "--output=json", str(path)]
    real = subprocess.run(command, capture_output=True, text=True, check=False)
    emulator = Emulator()
    node = await emulator.opener.open(
        {"driver": "vdi", "file": {"driver": "file", "filename": str(path)}}
    )
    capfd.readouterr()
    found = await node.check(0)
    assert capfd.readouterr().err == real.stderr
    assert found.corruptions == json.loads(real.stdout).get("corruptions", 0)
    await emulator.graph.release(node)
    await emulator.close()
