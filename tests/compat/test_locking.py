"""Image locks: QEMU's programs and ours keep each other out, in the same words."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from compat.daemon import Blockemu, Daemon, StorageDaemon, image

KINDS = [StorageDaemon, Blockemu]
WRITER = {
    "driver": "qcow2",
    "node-name": "disk",
    "file": {"driver": "file", "filename": "disk.qcow2"},
}
READER = WRITER | {"read-only": True}


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, program: Callable[[str], str]) -> None:
    for name in ("qemu-img", "qemu-io", "qemu-storage-daemon"):
        program(name)
    image("create", "-f", "qcow2", "disk.qcow2", "1M", cwd=tmp_path)


def said(folder: Path, *command: str) -> tuple[int, str]:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_qemu_img_refuses_an_image_that_a_daemon_writes(tmp_path: Path, kind: type[Daemon]) -> None:
    with kind(tmp_path) as daemon:
        daemon("blockdev-add", WRITER)
        status, text = said(tmp_path, "qemu-img", "info", "disk.qcow2")
        assert status == 1
        assert text == (
            "qemu-img: Could not open 'disk.qcow2': Failed to get shared \"write\" lock\n"
            "Is another process using the image [disk.qcow2]?\n"
        )
        assert said(tmp_path, "qemu-img", "info", "-U", "disk.qcow2")[0] == 0
        assert said(tmp_path, "qemu-io", "-c", "write 0 512", "disk.qcow2")[0] == 1
        daemon("blockdev-del", node_name="disk")
        assert said(tmp_path, "qemu-io", "-c", "write 0 512", "disk.qcow2") == (0, "")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_readers_share_an_image(tmp_path: Path, kind: type[Daemon]) -> None:
    with kind(tmp_path) as daemon:
        daemon("blockdev-add", READER)
        assert said(tmp_path, "qemu-img", "info", "disk.qcow2") == (0, "")
        status, text = said(tmp_path, "qemu-io", "-c", "write 0 512", "disk.qcow2")
        assert status == 1
        assert 'Failed to get "write" lock' in text


@pytest.mark.parametrize("holder", KINDS, ids=lambda kind: f"{kind.kind}-holds")
@pytest.mark.parametrize("comer", KINDS, ids=lambda kind: f"{kind.kind}-comes")
@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (WRITER, WRITER, 'Failed to get "write" lock'),
        (WRITER, READER, 'Failed to get shared "write" lock'),
        (READER, WRITER, 'Failed to get "write" lock'),
        (READER, READER, None),
        (WRITER, READER | {"force-share": True}, None),
    ],
    ids=["write-write", "write-read", "read-write", "read-read", "write-shared"],
)
def test_two_daemons_and_one_image(
    tmp_path: Path, holder: type[Daemon], comer: type[Daemon], first, second, verdict
) -> None:
    with holder(tmp_path) as one:
        one("blockdev-add", first)
        with comer(tmp_path) as other:
            answer = other.execute("blockdev-add", second)
            assert answer.get("error", {}).get("desc") == verdict
            if verdict is not None:
                one("blockdev-del", node_name="disk")
                other("blockdev-add", second)
