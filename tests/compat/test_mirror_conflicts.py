"""Guests' writes to the same place while a mirror writes them to both sides."""

import pytest
from compat.test_blockemu_qemu import OURS, REAL, conversation, image

DISKS = ["-drive", "if=none,id=source,node-name=src,driver=qcow2,file.driver=blkdebug"]
DISKS[1] += ",file.image.driver=file,file.image.filename=a.qcow2"
DISKS += ["-blockdev", "driver=file,node-name=t0,filename=b.qcow2"]
DISKS += ["-blockdev", "driver=qcow2,node-name=target,file=t0"]
DISKS += ["-device", "virtio-blk,id=v,drive=source"]
MIRROR = """
blockdev-mirror {"job-id": "j", "device": "src", "target": "target", "sync": "full",
"copy-mode": "write-blocking", "speed": 1}
"""
CONFLICTS = [  # the last write is let past those that wait for the first
    'hmp qemu-io source "write -P 1 0 2M"',
    MIRROR.replace("\n", " ").strip(),
    'hmp qemu-io source "break write_aio A"',
    'hmp qemu-io source "aio_write -q 0 1M"',
    'hmp qemu-io source "wait_break A"',
    'hmp qemu-io source "aio_write -q 0 2M"',
    'hmp qemu-io source "aio_write -q 0 2M"',
    'hmp qemu-io source "break write_aio B"',
    'hmp qemu-io source "aio_write -q 1M 2M"',
    'hmp qemu-io source "wait_break B"',
    'hmp qemu-io source "resume A"',
    'hmp qemu-io source "resume B"',
    'hmp qemu-io source "aio_flush"',
    'hmp qemu-io source "read -P 0xcd 0 3M"',
]


@pytest.fixture
def folder(tmp_path, program):
    program("qemu-system-x86_64")
    for name in ("a.qcow2", "b.qcow2"):
        image("create", "-f", "qcow2", name, "8M", cwd=tmp_path)
    return tmp_path


def test_writes_wait_for_what_is_under_way_and_not_for_who_waits(folder):
    """When jobs stand still for that moment is not looked at."""
    told = []
    for program in (REAL, OURS):
        said, printed = conversation(program, DISKS, folder, CONFLICTS)
        told.append(([line for line in said if '"event"' not in line], printed))
    assert told[1] == told[0]
    assert "read 3145728/3145728 bytes" in told[0][1]
