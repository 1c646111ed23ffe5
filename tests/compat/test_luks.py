"""Encrypted images go both ways between our programs and QEMU's; what is wrong is told alike."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from compat.test_luks_cryptsetup import CLOCK

SECRETS = ["--object", "secret,id=s,data=hunter2", "--object", "secret,id=w,data=wrong"]
BIN = Path(sys.executable).parent
MODES = [
    ("xts", "plain64"),
    ("xts", "plain"),
    ("cbc", "plain64"),
    ("cbc", "essiv"),
    ("ctr", "plain64"),
]
HASHES = ["sha1", "sha256", "sha512", "ripemd160"]


def run(program: str, *arguments: str, cwd: Path) -> str:
    """Run a tool of QEMU's, or ours; return what it says, as QEMU's would have it."""
    path = BIN / program if program.startswith("blockemu") else program
    for _ in range(20):
        done = subprocess.run(
            [str(path), *arguments],
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if CLOCK not in done.stderr:
            break
    return (done.stdout + done.stderr).replace("blockemu-", "qemu-")


def layouts() -> list[tuple[str, int]]:
    """Return creation options and a size, the same each time."""
    rng = random.Random(8)
    found = []
    for _ in range(12):
        mode, generator = rng.choice(MODES)
        bits = 256 if generator == "essiv" else rng.choice([128, 256])
        text = f"cipher-alg=aes-{bits},cipher-mode={mode},ivgen-alg={generator}"
        text += f",hash-alg={rng.choice(HASHES)}"
        found.append((text, rng.randrange(1, 4000) * 512))
    return found


@pytest.mark.parametrize("maker", ["qemu", "blockemu"])
@pytest.mark.parametrize(("options", "size"), layouts())
def test_what_one_program_writes_the_others_read(
    maker: str, options: str, size: int, tmp_path: Path
) -> None:
    run(f"{maker}-img", "create", *SECRETS, "-f", "luks", "-o",
        f"key-secret=s,iter-time=10,{options}", "x", str(size), cwd=tmp_path)  # fmt: skip
    image = [*SECRETS, "--image-opts", "driver=luks,key-secret=s,file.filename=x"]
    rng = random.Random(size)
    at = rng.randrange(size)
    length = rng.randrange(size - at) + 1
    other = "blockemu" if maker == "qemu" else "qemu"
    for writer, reader, byte in ((maker, other, 7), (other, maker, 9)):
        wrote = run(f"{writer}-io", *image, "-c", f"write -P {byte} {at} {length}", cwd=tmp_path)
        assert wrote.startswith(f"wrote {length}/{length}")
        read = run(f"{reader}-io", *image, "-c", f"read -P {byte} {at} {length}", cwd=tmp_path)
        assert read.startswith(f"read {length}/{length}")
    assert run("qemu-img", "info", "x", cwd=tmp_path) == run(
        "blockemu-img", "info", "x", cwd=tmp_path
    )


@pytest.mark.parametrize("fmt", ["luks", "aes"])
def test_an_encrypted_qcow2_image_goes_both_ways(fmt: str, tmp_path: Path) -> None:
    more = ",encrypt.iter-time=10" if fmt == "luks" else ""
    run("blockemu-img", "create", *SECRETS, "-f", "qcow2", "-o",
        f"encrypt.format={fmt},encrypt.key-secret=s,cluster_size=4k{more}", "x", "1M",
        cwd=tmp_path)  # fmt: skip
    spec = f"driver=qcow2,encrypt.format={fmt},encrypt.key-secret=s,file.filename=x"
    image = [*SECRETS, "--image-opts", spec]
    for writer, reader, at in (("blockemu", "qemu", 300), ("qemu", "blockemu", 500_000)):
        run(f"{writer}-io", *image, "-c", f"write -P 5 {at} 10000", cwd=tmp_path)
        read = run(f"{reader}-io", *image, "-c", f"read -P 5 {at} 10000",
                   "-c", f"read -P 0 {at + 10000} 9000", cwd=tmp_path)  # fmt: skip
        assert "Pattern" not in read
        assert read.count("\nread") + read.startswith("read") == 2
    assert run("qemu-img", "check", *image, cwd=tmp_path).startswith("No errors were found")
    assert run("qemu-img", "info", "x", cwd=tmp_path) == run(
        "blockemu-img", "info", "x", cwd=tmp_path
    )


STEPS = [
    "state=active",
    "state=active,new-secret=w,iter-time=10",
    "state=active,new-secret=w,keyslot=1",
    "state=active,new-secret=w,keyslot=-1",
    "state=active,new-secret=w,old-secret=s",
    "state=inactive",
    "state=inactive,keyslot=3",
    "state=inactive,keyslot=8",
    "state=inactive,keyslot=1,old-secret=s",
    "state=inactive,old-secret=w",
    "state=inactive,keyslot=0",
    "state=inactive,old-secret=s",
    "state=foo",
    "key-secret=s",
]


def test_key_slots_change_as_with_qemu_and_are_refused_in_its_words(tmp_path: Path) -> None:
    answers = []
    for maker in ("qemu", "blockemu"):
        run("qemu-img", "create", *SECRETS, "-f", "luks", "-o", "key-secret=s,iter-time=10",
            maker, "1M", cwd=tmp_path)  # fmt: skip
        image = [*SECRETS, "--image-opts", f"driver=luks,key-secret=s,file.filename={maker}"]
        said = [run(f"{maker}-img", "amend", "-o", step, *image, cwd=tmp_path) for step in STEPS]
        active = run("qemu-img", "info", maker, cwd=tmp_path).count("active: true")
        answers.append((said, active))
    assert answers[0] == answers[1]
    assert answers[0][1] == 1


def damaged(folder: Path, at: int, what: bytes) -> None:
    with (folder / "x").open("r+b") as file:
        file.seek(at)
        file.write(what)


@pytest.mark.parametrize(
    ("at", "what"),
    [
        (0, b"LUXS"),
        (7, b"\2"),
        (8, b"a" * 32),
        (40, b"xts\0"),
        (72, b"sha9"),
        (104, bytes(4)),  # payload offset
        (164, bytes(4)),  # iterations
        (208, b"\0\0\0\1"),  # the first slot's state
        (212, bytes(4)),
        (248, b"\xff\xff\0\0"),
        (252, b"\0\0\0\1"),
        (112, b"\1"),  # the digest: no passphrase is right
        (8192, b"\1" * 99),  # the first slot's material
    ],
)
def test_a_damaged_volume_is_refused_in_qemus_words(at: int, what: bytes, tmp_path: Path) -> None:
    run("qemu-img", "create", *SECRETS, "-f", "luks", "-o", "key-secret=s,iter-time=10",
        "x", "64k", cwd=tmp_path)  # fmt: skip
    damaged(tmp_path, at, what)
    before = (tmp_path / "x").read_bytes()
    image = [*SECRETS, "--image-opts", "driver=luks,key-secret=s,file.filename=x", "-c", "quit"]
    theirs = run("qemu-io", *image, cwd=tmp_path)
    assert theirs.startswith("qemu-io: can't open: ")
    assert run("blockemu-io", *image, cwd=tmp_path) == theirs
    assert (tmp_path / "x").read_bytes() == before


@pytest.mark.parametrize("image", ["luks", "aes", "plain"])
@pytest.mark.parametrize(
    "texts",
    [
        "",
        "encrypt.key-secret=s",
        "encrypt.key-secret=none",
        "encrypt.format=luks,encrypt.key-secret=s",
        "encrypt.format=aes,encrypt.key-secret=s",
        "encrypt.format=other,encrypt.key-secret=s",
        "encrypt.key-secret=s,encrypt.odd=1",
        "encrypt.format=luks,encrypt.odd=1",
    ],
)
def test_texts_leave_the_format_of_encryption_to_the_header(
    image: str, texts: str, tmp_path: Path
) -> None:
    how = "" if image == "plain" else f"encrypt.format={image},encrypt.key-secret=s,"
    how += "encrypt.iter-time=10," if image == "luks" else ""
    made = run("qemu-img", "create", *SECRETS, "-f", "qcow2", "-o", f"{how}compat=1.1", "x", "1M",
               cwd=tmp_path)  # fmt: skip
    assert made.startswith("Formatting")
    opened = [*SECRETS, "--image-opts", "-c", "write -q -P 7 0 512", "-c", "read -q -P 7 0 512"]
    opened.append(f"driver=qcow2,file.filename=x,{texts}".rstrip(","))
    assert run("blockemu-io", *opened, cwd=tmp_path) == run("qemu-io", *opened, cwd=tmp_path)


def test_a_machine_refuses_images_of_the_first_way(tmp_path: Path) -> None:
    run("qemu-img", "create", *SECRETS, "-f", "qcow2", "-o",
        "encrypt.format=aes,encrypt.key-secret=s", "x", "1M", cwd=tmp_path)  # fmt: skip
    machine = ["-machine", "none", "-display", "none", "-drive", "if=none,file=x"]
    told = run("blockemu-qemu", *SECRETS, *machine, cwd=tmp_path)
    real = run("qemu-system-x86_64", *SECRETS, *machine, cwd=tmp_path)
    assert "no longer supported in system emulators" in real
    assert told.partition(": ")[2] == real.partition(": ")[2]


@pytest.mark.parametrize("maker", ["qemu", "blockemu"])
def test_an_encrypted_chain_with_snapshots_and_bitmaps_goes_both_ways(
    maker: str, tmp_path: Path
) -> None:
    """An encrypted overlay over an encrypted base over a LUKS volume, each with its own key."""
    for name, fmt, backing, size in (
        ("low", "luks", "", "640k"),
        ("base", "qcow2", "low", "1M"),
        ("top", "qcow2", "base", "1M"),
    ):
        secret, prefix = ("w", "encrypt.") if name == "base" else ("s", "encrypt.")
        how = f"{prefix}format=luks,{prefix}key-secret={secret},{prefix}iter-time=10"
        how = f"key-secret={secret},iter-time=10" if fmt == "luks" else f"{how},cluster_size=4k"
        if backing:
            how += f",backing_file={backing},backing_fmt={'luks' if backing == 'low' else 'qcow2'}"
        made = run("blockemu-img", "create", *SECRETS, "-f", fmt, "-u", "-o", how, name, size,
                   cwd=tmp_path)  # fmt: skip
        assert made.startswith("Formatting"), made
    low = (
        "backing.backing.driver=luks,backing.backing.key-secret=s,backing.backing.file.filename=low"
    )
    base = "backing.driver=qcow2,backing.encrypt.key-secret=w,backing.file.filename=base"
    top = "driver=qcow2,encrypt.key-secret=s,file.filename=top"
    whole = [*SECRETS, "--image-opts", f"{top},{base},{low}"]
    top_only = [*SECRETS, "--image-opts", top]
    other = "blockemu" if maker == "qemu" else "qemu"

    def io(program: str, image: list[str], *commands: str) -> str:
        argv = [word for command in commands for word in ("-c", command)]
        said = run(f"{program}-io", *image, *argv, cwd=tmp_path)
        assert "Pattern" not in said, said
        assert "ailed" not in said, said
        return said

    io(maker, [*SECRETS, "--image-opts", "driver=luks,key-secret=s,file.filename=low"],
       "write -q -P 1 0 640k")  # fmt: skip
    io(other, [*SECRETS, "--image-opts", f"{base.replace('backing.', '')},"
       f"{low.replace('backing.backing', 'backing')}"], "write -q -P 2 100k 50k")  # fmt: skip
    io(maker, whole, "write -q -P 3 120k 1000", "write -q -z 200k 40k")
    assert not run(f"{maker}-img", "snapshot", "-c", "one", *whole, cwd=tmp_path)
    assert not run(f"{other}-img", "bitmap", "--add", *top_only, "b", cwd=tmp_path)
    io(other, whole, "write -q -P 4 121k 30000", "write -q -P 5 900k 10k")
    reads = (
        "read -P 1 0 100k", "read -P 2 100k 20k", "read -P 3 120k 1000", "read -P 4 121k 30000",
        "read -P 0 200k 40k", "read -P 1 240k 400k", "read -P 0 640k 260k", "read -P 5 900k 10k",
    )  # fmt: skip
    for program in (maker, other):
        io(program, whole, *reads)
        checked = run("qemu-img", "check", *whole, cwd=tmp_path)
        assert checked.startswith("No errors were found"), checked
    told = [run(f"{program}-img", "info", "-U", "top", cwd=tmp_path) for program in (maker, other)]
    assert told[0] == told[1]
    assert "one" in told[0]
    assert "name: b" in told[0]
    assert not run(f"{maker}-img", "bitmap", "--remove", *top_only, "b", cwd=tmp_path)
    assert not run(f"{other}-img", "snapshot", "-a", "one", *whole, cwd=tmp_path)
    io(maker, whole, "read -P 3 120k 1000", "read -P 2 125k 25k", "read -P 0 900k 10k")
