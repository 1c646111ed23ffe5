"""An image amended by our driver is as sound, and as told of, as one amended by qemu-img."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from compat.daemon import Both, Daemon, image
from compat.qcow2_images import check, guest, mapped, qemu_io, random_ops, run

from blockemu.errors import QmpError

SIZE = 8 << 20
CASES = [
    ("", "compat=0.10"),
    ("", "compat=0.10,size=16M"),
    ("", "compat=1.1"),
    ("", "compat=v4"),
    ("compat=0.10", "compat=1.1"),
    ("compat=0.10", "compat=v3,lazy_refcounts=on,refcount_bits=64"),
    ("compat=0.10", "lazy_refcounts=on"),
    ("compat=0.10", "refcount_bits=8"),
    ("", "lazy_refcounts=on"),
    ("lazy_refcounts=on", "lazy_refcounts=off"),
    ("lazy_refcounts=on", "compat=0.10"),
    ("lazy_refcounts=on", "compat=0.10,lazy_refcounts=off"),
    ("refcount_bits=8", "compat=0.10"),
    ("refcount_bits=8", "compat=0.10,refcount_bits=16"),
    ("", "refcount_bits=1"),
    ("", "refcount_bits=2"),
    ("", "refcount_bits=64"),
    ("cluster_size=512", "refcount_bits=64"),
    ("cluster_size=512", "refcount_bits=4"),
    ("cluster_size=512", "compat=0.10"),
    ("", "refcount_bits=3"),
    ("", "refcount_bits=128"),
    ("", "size=16M"),
    ("", "size=4M"),
    ("", "size=1000"),
    ("compression_type=zstd", "compat=0.10"),
    ("extended_l2=on", "compat=0.10"),
    ("data_file=d", "compat=0.10"),
    ("data_file=d", "data_file=e"),
    ("data_file=d", "data_file="),
    ("data_file=d", "data_file_raw=on"),
    ("data_file=d,data_file_raw=on", "data_file_raw=off"),
    ("", "data_file=d"),
    ("", "data_file_raw=on"),
    ("", "backing_file=x"),
    ("BACKED", "backing_file=base"),
    ("BACKED", "backing_file=base,backing_fmt=raw"),
    ("BACKED", "backing_fmt=qcow2"),
    ("BACKED", "compat=0.10"),
    ("BACKED,cluster_size=512", "compat=0.10"),
    ("BACKED", "refcount_bits=32,size=12M"),
    ("", "encrypt.state=active"),
]


@pytest.mark.parametrize(
    ("made", "options", "snapshots"),
    [
        (*case, snapshots)
        for case in CASES
        for snapshots in (False, True)
        if not (snapshots and "data_file" in case[0])  # QEMU has no snapshots with data files
    ],
)
async def test_amended_as_by_qemu(tmp_path, program, monkeypatch, made, options, snapshots):
    program("qemu-img")
    real, mine = tmp_path / "real", tmp_path / "mine"
    for folder in (real, mine):
        prepare(folder, made, snapshots=snapshots)
    before = contents(mine, snapshots=snapshots)
    command = ["qemu-img", "amend", "-f", "qcow2", "-o", options, "x"]
    done = subprocess.run(command, cwd=real, capture_output=True, text=True, check=False)
    monkeypatch.chdir(mine)
    said = ""
    async with guest(Path("x")) as (_, node):
        try:
            await node.amend(dict(o.split("=", 1) for o in options.split(",")), lambda *_: None)
        except QmpError as e:
            said = f"qemu-img: {e}\n{e.hint}"
    assert said == done.stderr
    told = [image("info", "-f", "qcow2", "x", cwd=folder) for folder in (mine, real)]
    assert without_size(told[0]) == without_size(told[1])
    if options.startswith("data_file=") and "data_file" in made:
        return  # the image has lost its data
    check(mine / "x")
    if "size" not in options:
        assert contents(mine, snapshots=snapshots) == before
    if not snapshots:  # else QEMU may zero what a snapshot still needs
        run("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", mine / "x", real / "x")
        assert mapped(mine / "x") == mapped(real / "x")


def contents(folder: Path, *, snapshots: bool) -> list[bytes]:
    """Return what a guest sees, now and in the snapshot."""
    found = []
    for more in ([], ["-l", "s"])[: 2 if snapshots else 1]:
        image("convert", "-f", "qcow2", "-O", "raw", *more, "x", "raw", cwd=folder)
        found.append((folder / "raw").read_bytes())
    return found


def prepare(folder: Path, made: str, *, snapshots: bool) -> None:
    folder.mkdir()
    image("create", "-q", "-f", "raw", "base", "8M", cwd=folder)
    run("qemu-io", "-f", "raw", "-c", "write -q -P 77 0 8M", folder / "base")
    base = ["-b", "base", "-F", "raw"] if "BACKED" in made else []
    options = made.replace("BACKED", "").strip(",")
    more = ["-o", options] if options else []
    image("create", "-q", "-f", "qcow2", *base, *more, "x", str(SIZE), cwd=folder)
    operations = random_ops(5, 25)
    qemu_io(folder / "x", operations[:15], cwd=folder)
    if snapshots:
        image("snapshot", "-c", "s", "x", cwd=folder)
    qemu_io(folder / "x", operations[15:], cwd=folder)


def without_size(told: str) -> list[str]:
    return [line for line in told.splitlines() if "disk size" not in line and "20" not in line[:60]]


def test_amending_by_qmp_is_a_job_and_refused_as_by_qemu(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        daemon("blockdev-add", {"driver": "null-co", "node-name": "n"})
        file = {"driver": "file", "filename": "x"}
        daemon("blockdev-add", {"driver": "qcow2", "node-name": "q", "file": file})
        for name, driver in (("q", "qcow2"), ("q", "raw"), ("n", "null-co"), ("absent", "qcow2")):
            daemon.execute(
                "x-blockdev-amend",
                {"job-id": "j", "node-name": name, "options": {"driver": driver}},
            )
        daemon.job_until("j", "concluded")
        daemon("query-jobs")
        daemon("job-dismiss", {"id": "j"})

    both(
        script,
        prepare=lambda folder: image("create", "-f", "qcow2", "x", "1M", cwd=folder),
        racing=True,
    )
