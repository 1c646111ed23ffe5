"""The command lines by which known programs start QEMU, and the first things that they ask."""

import pytest
from compat.test_blockemu_qemu import OURS, REAL, conversation, image

LINES = {
    "a test suite of a storage service": (
        "-nodefaults -machine accel=kvm:tcg -drive "
        "if=virtio,id=drive0,node-name=file0,file=disk.qcow2,format=qcow2 -nographic -net none "
        "-monitor none -audiodev none,id=1 -S"
    ),
    "a sandbox of an agent": (
        "-machine none -nodefaults -display none -S "
        "-blockdev driver=qcow2,node-name=rootdisk0,file.driver=file,file.filename=disk.qcow2"
    ),
    "a manager of machines": (
        "-name guest=vm,debug-threads=on -S -machine pc,usb=off,dump-guest-core=off -accel tcg "
        "-cpu qemu64 -m 64 -smp 1,sockets=1,cores=1,threads=1 "
        "-uuid c7a5fdbd-edaf-9455-926a-d65c16db1809 -display none -no-user-config -nodefaults "
        "-rtc base=utc -no-shutdown -boot strict=on "
        '-device {"driver":"virtio-scsi-pci","id":"scsi0"} '
        '-blockdev {"driver":"file","filename":"disk.qcow2","node-name":"st","auto-read-only":true} '
        '-blockdev {"node-name":"fmt","read-only":false,"driver":"qcow2","file":"st"} '
        '-device {"driver":"scsi-hd","bus":"scsi0.0","drive":"fmt","id":"scsi0-0","bootindex":1}'
    ),
    "a person": "-hda disk.qcow2 -cdrom r.img -display none -monitor none -S",
}
ASKED = """
query-status
query-name
query-tpm
query-block
query-named-block-nodes {"flat": true}
query-blockstats
query-jobs
query-block-jobs
query-fdsets
query-balloon
nbd-server-stop
query-block-exports
qom-list-properties {"typename": "absent"}
device_del {"id": "absent"}
cont
query-status
stop
system_powerdown
query-status
""".strip().splitlines()


@pytest.fixture
def folder(tmp_path, program):
    program("qemu-system-x86_64")
    image("create", "-f", "qcow2", "disk.qcow2", "4M", cwd=tmp_path)
    image("create", "-f", "raw", "r.img", "1M", cwd=tmp_path)
    return tmp_path


@pytest.mark.parametrize("who", LINES)
def test_started_by(folder, who):
    options = LINES[who].split(" ")
    (real, _), (ours, said) = (conversation(p, options, folder, ASKED, []) for p in (REAL, OURS))
    assert ours == real
    assert said == ""  # QEMU's warns of what the host's CPU lacks


def test_a_device_is_called_as_its_user_calls_it(folder):
    """What ``query-block`` calls a device is what other commands find it by."""
    options = ["-drive", "if=none,id=x,file=disk.qcow2", "-device", "virtio-scsi,id=s"]
    options += ["-device", "scsi-cd,id=sd0,drive=x", "-drive", "driver=null-co"]
    base = ["-nodefaults", "-display", "none", "-S"]
    names = ["sd0", "/machine/peripheral/sd0", "/machine/unattached/device[18]", "absent"]
    commands = [
        f'{command} {{"id": "{name}"}}'
        for name in names
        for command in ("blockdev-open-tray", "blockdev-close-tray")
    ]
    real, ours = (conversation(p, options, folder, commands, base) for p in (REAL, OURS))
    assert ours == real
