"""LUKS by QMP: creation, keys that are wrong or missing, slots that go; and no word of a passphrase."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import Blockemu, Both, Daemon, image

PASSPHRASE = "correct-horse-battery"
SIZE = 3 << 20
PAYLOAD = 2068480  # bytes before the disk, with AES-256 in XTS mode
IMG = str(Path(sys.executable).parent / "blockemu-img")
SECRETS = {"s": PASSPHRASE, "w": "wrong"}


def add_secrets(daemon: Daemon) -> None:
    for name, text in SECRETS.items():
        daemon.execute("object-add", {"qom-type": "secret", "id": name, "data": text})


def run_job(daemon: Daemon, command: str, arguments: dict[str, Any]) -> None:
    """Run a job until it is gone, and have its error in the transcript."""
    reply = daemon.execute(command, arguments)
    if "error" in reply:
        return
    daemon.job_until(arguments["job-id"], "concluded")
    daemon.execute("query-jobs")
    daemon.execute("job-dismiss", {"id": arguments["job-id"]})


def file(name: str = "x") -> dict[str, Any]:
    return {"driver": "file", "filename": name}


def volume(folder: Path) -> None:
    """Make a volume, and an encrypted qcow2 image; QEMU could not where time goes in large steps."""
    secret = ["--object", f"secret,id=s,data={PASSPHRASE}"]
    for name, fmt, prefix in (("x", "luks", ""), ("q", "qcow2", "encrypt.")):
        how = f"{prefix}key-secret=s,{prefix}iter-time=10"
        how += ",encrypt.format=luks" if prefix else ""
        command = [IMG, "create", "-q", *secret, "-f", fmt, "-o", how, name, "64k"]
        subprocess.run(command, cwd=folder, check=True)


@pytest.mark.parametrize("mode", [None, "off", "metadata", "falloc", "full"])
def test_a_volume_is_created_with_any_preallocation(
    mode: str | None, tmp_path: Path, program: Callable[[str], str]
) -> None:
    program("qemu-img")
    with Blockemu(tmp_path) as daemon:
        add_secrets(daemon)
        run_job(daemon, "blockdev-create", {"job-id": "f", "options": {
            "driver": "file", "filename": "x", "size": 0}})  # fmt: skip
        daemon.execute("blockdev-add", {"node-name": "f", **file()})
        options = {"driver": "luks", "file": "f", "size": SIZE, "key-secret": "s", "iter-time": 10}
        options |= {} if mode is None else {"preallocation": mode}
        run_job(daemon, "blockdev-create", {"job-id": "l", "options": options})
    done = (tmp_path / "x").stat()
    assert done.st_size == SIZE + PAYLOAD
    assert (done.st_blocks * 512 >= SIZE) == (mode in ("falloc", "full"))
    secret = f"secret,id=s,data={PASSPHRASE}"
    spec = "driver=luks,key-secret=s,file.filename=x"
    told = json.loads(
        image("info", "--output=json", "--object", secret, "--image-opts", spec, cwd=tmp_path)
    )
    assert (told["virtual-size"], told["encrypted"]) == (SIZE, True)


OPENED = [
    {"driver": "luks", "file": file()},
    {"driver": "luks", "file": file(), "key-secret": "none"},
    {"driver": "luks", "file": file(), "key-secret": "w"},
    {"driver": "luks", "file": file(), "key-secret": "s"},
    {"driver": "luks", "file": file("cut"), "key-secret": "s"},
    {"driver": "luks", "file": file("short"), "key-secret": "s"},
    {"driver": "luks", "file": file("endless"), "key-secret": "s"},
    {"driver": "luks", "file": file("lies"), "key-secret": "s"},
    {"driver": "qcow2", "file": file("q")},
    {"driver": "qcow2", "file": file("q"), "encrypt": {"format": "luks"}},
    {"driver": "qcow2", "file": file("q"), "encrypt": {"format": "luks", "key-secret": "none"}},
    {"driver": "qcow2", "file": file("q"), "encrypt": {"format": "luks", "key-secret": "w"}},
    {"driver": "qcow2", "file": file("q"), "encrypt": {"format": "aes", "key-secret": "s"}},
    {"driver": "qcow2", "file": file("q"), "encrypt": {"format": "luks", "key-secret": "s"}},
]


def damaged(source: Path) -> None:
    """Add volumes that are cut off, and whose headers lie."""
    data = source.read_bytes()
    (source.parent / "cut").write_bytes(data[: PAYLOAD - 512])
    (source.parent / "short").write_bytes(data[:300])
    endless, lies = bytearray(data), bytearray(data)
    endless[212:216] = b"\xff" * 4  # iterations of the first slot
    lies[104:108] = b"\x7f" + b"\xff" * 3  # where the disk begins
    (source.parent / "endless").write_bytes(endless)
    (source.parent / "lies").write_bytes(lies)


def test_what_opens_and_what_does_not_is_told_alike(both: Both, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    volume(made)
    damaged(made / "x")

    def script(daemon: Daemon) -> None:
        add_secrets(daemon)
        for options in OPENED:
            daemon.execute("blockdev-add", {"node-name": "n", **options})
            daemon.execute("query-named-block-nodes", {"flat": True})
            daemon.execute("object-del", {"id": "s"})
            daemon.execute("blockdev-del", {"node-name": "n"})

    for name in ("x", "q", "cut", "short", "endless", "lies"):
        assert (made / name).exists()
    before = {name: (made / name).read_bytes() for name in ("x", "q", "endless")}
    both(script, prepare=lambda folder: shutil.copytree(made, folder, dirs_exist_ok=True))
    for name, data in before.items():
        assert (tmp_path / Blockemu.kind / name).read_bytes() == data


ERASED = [
    {"state": "inactive", "keyslot": 0},
    {"state": "inactive", "old-secret": "s"},
    {"state": "inactive", "old-secret": "w"},
    {"state": "inactive", "keyslot": 0, "old-secret": "w"},
    {"state": "inactive", "keyslot": 0, "new-secret": "w"},
    {"state": "inactive", "keyslot": 3},
    {"state": "inactive", "keyslot": 8},
    {"state": "inactive"},
    {"state": "active"},
    {"state": "active", "new-secret": "w", "keyslot": 0},
]


def test_the_last_key_goes_by_force_only(both: Both, tmp_path: Path) -> None:
    volume(tmp_path)

    def script(daemon: Daemon) -> None:
        add_secrets(daemon)
        daemon.execute(
            "blockdev-add", {"driver": "luks", "node-name": "n", "key-secret": "s", "file": file()}
        )
        for i, how in enumerate(ERASED):
            options = {"driver": "luks", **how}
            run_job(
                daemon,
                "x-blockdev-amend",
                {"job-id": f"j{i}", "node-name": "n", "options": options},
            )
        options = {"driver": "luks", "state": "inactive", "keyslot": 0}
        run_job(
            daemon,
            "x-blockdev-amend",
            {"job-id": "last", "node-name": "n", "options": options, "force": True},
        )
        daemon.execute("query-named-block-nodes", {"flat": True})
        daemon.execute("blockdev-del", {"node-name": "n"})
        daemon.execute(
            "blockdev-add", {"driver": "luks", "node-name": "n", "key-secret": "s", "file": file()}
        )

    both(script, prepare=lambda folder: shutil.copy(tmp_path / "x", folder), racing=True)


def test_a_passphrase_is_told_to_nobody(tmp_path: Path) -> None:
    coded = base64.b64encode(PASSPHRASE.encode()).decode()
    volume(tmp_path)
    with Blockemu(tmp_path) as daemon:
        add_secrets(daemon)
        daemon.execute(
            "object-add", {"qom-type": "secret", "id": "b", "data": coded, "format": "base64"}
        )
        daemon.execute("object-add", {"qom-type": "secret", "id": "c", "data": PASSPHRASE + "é",
                                      "format": "base64"})  # fmt: skip
        daemon.execute("object-add", {"qom-type": "secret", "id": "c", "data": PASSPHRASE,
                                      "keyid": "s"})  # fmt: skip
        said = len(daemon.transcript)
        for options in OPENED[:4]:
            daemon.execute("blockdev-add", {"node-name": "n", **options})
        daemon.execute("object-add", {"qom-type": "secret", "id": "s", "data": "again"})
        for name in ("query-named-block-nodes", "query-block", "query-jobs"):
            daemon.execute(name)
        daemon.execute("qom-list", {"path": "/objects/s"})
        how = {"driver": "luks", "state": "active", "new-secret": "b", "iter-time": 10}
        run_job(daemon, "x-blockdev-amend", {"job-id": "j", "node-name": "n", "options": how})
        daemon.execute("blockdev-del", {"node-name": "n"})
        told = json.dumps(daemon.transcript[said:])
        answers = json.dumps([what for kind, what in daemon.transcript if kind != "command"])
    printed = (tmp_path / "stderr.log").read_text() + (tmp_path / "stdout.log").read_text()
    for text in (PASSPHRASE, coded):
        assert text not in told
        assert text not in answers
        assert text not in printed
