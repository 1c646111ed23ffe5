"""LUKS volumes of random shapes, by QEMU, by cryptsetup and by us: each opens what another made.

cryptsetup needs no device mapper for what is asked of it here: it formats files, looks at headers,
tries passphrases and adds keys.  Sectors are compared with QEMU's.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
BATCH, BATCHES = 8, 8
PASSPHRASES = ("hunter2", "correct horse", "x", "9" * 60)
SECRETS = [
    word
    for i, text in enumerate(PASSPHRASES)
    for word in ("--object", f"secret,id=s{i},data={text}")
]
HASHES = ("sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160")
CLOCK = "Unable to get accurate CPU usage"  # QEMU gives up where time passes in large steps


@dataclass
class Shape:
    """How a volume is made; ``slots`` are (slot, passphrase) that are filled after the first."""

    bits: int
    mode: str
    generator: str
    iv_hash: str | None
    digest: str
    sectors: int
    writes: list[tuple[int, int, int]]  # offset, length, byte
    slots: list[tuple[int, int]]
    by_cryptsetup: bool = False

    @classmethod
    def draw(cls, seed: int) -> Shape:
        rng = random.Random(seed)
        mode = rng.choice(["xts", "xts", "cbc", "cbc", "ctr", "ecb"])
        generator = rng.choice(["plain64", "plain64", "plain", "essiv"])
        # QEMU gives up where a slot's key material is not whole sectors, so no 192 bits elsewhere.
        bits = rng.choice([128, 192, 256] if mode == "xts" else [128, 256])
        iv_hash = None
        if generator == "essiv":
            iv_hash, bits = ("sha256", 256)
        sectors = rng.choice([1, 7, 64, 1000, rng.randrange(1, 6000)])
        writes = []
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(sectors * 512)
            length = min(rng.choice([1, 512, 4096, 70_000, 1 << 20]), sectors * 512 - at)
            writes.append((at, length, rng.randrange(1, 255)))
        free = rng.sample(range(1, 8), rng.choice([0, 0, 1, 2]))
        slots = [(slot, rng.randrange(1, len(PASSPHRASES))) for slot in free]
        shape = cls(bits, mode, generator, iv_hash, rng.choice(HASHES), sectors, writes, slots)
        shape.by_cryptsetup = seed % 3 == 2 and shape.known_to_kernel
        return shape

    @property
    def iv(self) -> str:
        """How IVs are made, as headers tell it."""
        return self.generator + (f":{self.iv_hash}" if self.iv_hash else "")

    @property
    def known_to_kernel(self) -> bool:
        """Whether cryptsetup can reach the keys without device mapper."""
        return self.mode != "ecb" and (self.mode, self.bits) != ("xts", 192)

    @property
    def options(self) -> str:
        """What qemu-img takes."""
        text = f"key-secret=s0,iter-time=10,cipher-alg=aes-{self.bits},cipher-mode={self.mode}"
        text += f",ivgen-alg={self.generator},hash-alg={self.digest}"
        return text + (f",ivgen-hash-alg={self.iv_hash}" if self.iv_hash else "")


def run(
    name: str, *arguments: object, cwd: Path, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program; where QEMU cannot measure time, again."""
    path = str(BIN / name) if name.startswith("blockemu") else name
    command = [path, *map(str, arguments)]
    for _ in range(200):
        done = subprocess.run(
            command, cwd=cwd, input=stdin, capture_output=True, text=True, check=False, timeout=120
        )
        if CLOCK not in done.stderr:
            break
    return done


def good(name: str, *arguments: object, cwd: Path, stdin: str = "") -> str:
    done = run(name, *arguments, cwd=cwd, stdin=stdin)
    assert done.returncode == 0, (name, arguments, done.stdout, done.stderr)
    return done.stdout


def make(shape: Shape, maker: str, folder: Path) -> None:
    """Make a volume, and fill more of its slots."""
    if shape.by_cryptsetup:
        (folder / "key").write_text(PASSPHRASES[0])
        with (folder / "x").open("wb") as file:
            file.truncate(shape.sectors * 512 + (4 << 20))
        width = shape.bits * (2 if shape.mode == "xts" else 1)
        how = f"aes-{shape.mode}-{shape.iv}"
        cryptsetup(
            "luksFormat", "--type", "luks1", "--cipher", how,
            "--key-size", width, "--hash", shape.digest, "--pbkdf-force-iterations", 1000,
            "x", "key", cwd=folder,
        )  # fmt: skip
    else:
        good(
            f"{maker}-img", "create", "-q", *SECRETS, "-f", "luks", "-o", shape.options, "x",
            shape.sectors * 512, cwd=folder,
        )  # fmt: skip
    image = [*SECRETS, "--image-opts", "driver=luks,key-secret=s0,file.filename=x"]
    for slot, which in shape.slots:
        change = f"state=active,new-secret=s{which},keyslot={slot},iter-time=10"
        good(f"{maker}-img", "amend", "-q", "-o", change, *image, cwd=folder)


def cryptsetup(*arguments: object, cwd: Path, fails: bool = False) -> str:
    done = run("cryptsetup", "-q", *arguments, cwd=cwd)
    assert (done.returncode != 0) == fails, (arguments, done.stdout, done.stderr)
    return done.stdout


def try_passphrase(folder: Path, text: str, *, fails: bool = False) -> None:
    (folder / "tried").write_text(text)
    cryptsetup(
        "luksOpen", "--test-passphrase", "--disable-locks", "--key-file", "tried", "x", cwd=folder,
        fails=fails,
    )  # fmt: skip


@pytest.mark.parametrize("batch", range(BATCHES))
def test_volumes_of_random_shapes_go_all_ways(
    batch: int, tmp_path: Path, program: Callable[[str], str]
) -> None:
    for name in ("qemu-img", "qemu-io", "cryptsetup"):
        program(name)
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        shape = Shape.draw(seed)
        maker = "blockemu" if seed % 2 else "qemu"
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            make(shape, maker, folder)
            look_by_cryptsetup(shape, folder)
            use(shape, maker, folder)
        except BaseException as e:
            e.add_note(f"seed {seed}, made by {maker}: {shape}")
            raise


def look_by_cryptsetup(shape: Shape, folder: Path) -> None:
    """Let cryptsetup see whether the header and the passphrases are good."""
    cryptsetup("isLuks", "x", cwd=folder)
    dump = cryptsetup("luksDump", "x", cwd=folder)
    assert re.search(r"^Cipher name:\s+aes$", dump, re.M)
    assert re.search(rf"^Cipher mode:\s+{shape.mode}-{shape.iv}$", dump, re.M), dump
    assert re.search(rf"^Hash spec:\s+{shape.digest}$", dump, re.M), dump
    enabled = [int(n) for n in re.findall(r"^Key Slot (\d): ENABLED$", dump, re.M)]
    assert enabled == sorted([0, *(slot for slot, _ in shape.slots)])
    if shape.known_to_kernel:
        for which in {0, *(which for _, which in shape.slots)}:
            try_passphrase(folder, PASSPHRASES[which])
        try_passphrase(folder, "wrong", fails=True)


def use(shape: Shape, maker: str, folder: Path) -> None:
    """Write by one program what the other reads, opened by the last slot's passphrase."""
    which = shape.slots[-1][1] if shape.slots else 0
    image = [*SECRETS, "--image-opts", f"driver=luks,key-secret=s{which},file.filename=x"]
    other = "qemu" if maker == "blockemu" else "blockemu"
    programs = [maker, other] * 3
    for (at, length, byte), writer in zip(shape.writes, programs, strict=False):
        good(f"{writer}-io", *image, "-c", f"write -q -P {byte} {at} {length}", cwd=folder)
    for reader in (maker, other):
        good(f"{reader}-img", "convert", *image, "-O", "raw", f"raw.{reader}", cwd=folder)
    whole = (folder / "raw.qemu").read_bytes()
    assert whole == (folder / "raw.blockemu").read_bytes()
    for at, n, byte in final(shape.writes):
        assert whole[at : at + n] == bytes([byte]) * n
    assert good("qemu-img", "info", "x", cwd=folder) == good(
        "blockemu-img", "info", "x", cwd=folder
    )


def final(writes: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return those writes that no later one touched."""
    return [
        (at, n, byte)
        for i, (at, n, byte) in enumerate(writes)
        if all(a >= at + n or a + m <= at for a, m, _ in writes[i + 1 :])
    ]


def test_keys_that_cryptsetup_adds_open_a_volume_of_ours(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    program("cryptsetup")
    good("blockemu-img", "create", "-q", *SECRETS, "-f", "luks", "-o", "key-secret=s0,iter-time=10",
         "x", "1M", cwd=tmp_path)  # fmt: skip
    (tmp_path / "old").write_text(PASSPHRASES[0])
    (tmp_path / "new").write_text(PASSPHRASES[1])
    cryptsetup("luksAddKey", "--key-file", "old", "--key-slot", 5, "--pbkdf-force-iterations", 1000,
               "x", "new", cwd=tmp_path)  # fmt: skip
    image = [*SECRETS, "--image-opts", "driver=luks,file.filename=x,key-secret="]
    for which in (0, 1):
        good("blockemu-io", *image[:-1], f"{image[-1]}s{which}", "-c", "read -q 0 1M", cwd=tmp_path)
    cryptsetup("luksKillSlot", "--key-file", "new", "x", 0, cwd=tmp_path)
    told = run("blockemu-io", *image[:-1], f"{image[-1]}s0", "-c", "quit", cwd=tmp_path)
    assert "Invalid password, cannot unlock any keyslot" in told.stdout + told.stderr
    try_passphrase(tmp_path, PASSPHRASES[1])
