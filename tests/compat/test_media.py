"""Trays and media: CD-ROM drives, floppy drives, drives without a device; what has no tray."""

from difflib import unified_diff

import pytest
from compat.test_blockemu_qemu import OURS, REAL, conversation, image

BARE = ["-display", "none", "-monitor", "none"]
CONTROLLER = ["-device", "virtio-scsi,id=s"]
IMAGES = {
    "a.qcow2": "1M",
    "b.qcow2": "2M",
}


@pytest.fixture
def folder(tmp_path, program):
    program("qemu-system-x86_64")
    for name, size in IMAGES.items():
        image("create", "-f", "qcow2", name, size, cwd=tmp_path)
    image("create", "-f", "raw", "r.img", "1440k", cwd=tmp_path)
    (tmp_path / "ro.img").write_bytes(bytes(1 << 20))
    (tmp_path / "ro.img").chmod(0o444)
    return tmp_path


def alike(folder, options, commands, base):
    real, ours = (conversation(p, options, folder, commands, base) for p in (REAL, OURS))
    different = list(unified_diff(real[0], ours[0], "real", "ours", n=1, lineterm=""))
    assert not different, "\n".join(different)
    assert ours == real
    return "\n".join(real[0])


def talk(folder, options, commands):
    return alike(folder, options, commands, [*BARE, "-nodefaults", "-S"])


PLAIN = """
query-block
blockdev-open-tray {{"id": "{id}"}}
query-block
blockdev-open-tray {{"id": "{id}"}}
blockdev-insert-medium {{"id": "{id}", "node-name": "new"}}
blockdev-remove-medium {{"id": "{id}"}}
blockdev-remove-medium {{"id": "{id}"}}
blockdev-insert-medium {{"id": "{id}", "node-name": "absent"}}
blockdev-insert-medium {{"id": "{id}", "node-name": "used"}}
blockdev-insert-medium {{"id": "{id}", "node-name": "new"}}
blockdev-insert-medium {{"id": "{id}", "node-name": "new"}}
query-block
blockdev-close-tray {{"id": "{id}"}}
blockdev-close-tray {{"id": "{id}"}}
blockdev-remove-medium {{"id": "{id}"}}
blockdev-insert-medium {{"id": "{id}", "node-name": "new"}}
query-block
eject {{"id": "{id}"}}
eject {{"id": "{id}", "force": true}}
query-block
blockdev-close-tray {{"id": "{id}"}}
blockdev-change-medium {{"id": "{id}", "filename": "b.qcow2"}}
query-block
blockdev-change-medium {{"id": "{id}", "filename": "b.qcow2", "read-only-mode": "read-write"}}
query-block
blockdev-change-medium {{"id": "{id}", "filename": "a.qcow2", "format": "raw"}}
query-block
blockdev-change-medium {{"id": "{id}", "filename": "absent"}}
blockdev-change-medium {{"id": "{id}", "filename": "a.qcow2", "format": "absent"}}
blockdev-change-medium {{"id": "{id}", "filename": "a.qcow2", "read-only-mode": "absent"}}
blockdev-change-medium {{"id": "{id}", "filename": "a.qcow2", "read-only-mode": "read-only"}}
blockdev-change-medium {{"id": "{id}", "filename": "a.qcow2", "force": true}}
blockdev-change-medium {{"id": "{id}", "filename": "r.img", "format": "raw"}}
hmp info block
query-blockstats
x-debug-query-block-graph
""".strip().splitlines()
DEVICES = {
    "a CD-ROM drive on IDE": ["-device", "ide-cd,id=d,drive=x"],
    "a CD-ROM drive on SCSI": [*CONTROLLER, "-device", "scsi-cd,id=d,drive=x"],
    "a floppy drive": ["-device", "floppy,id=d,drive=x"],
    "a disk that can be taken out": [*CONTROLLER, "-device", "scsi-hd,id=d,drive=x,removable=on"],
    "a disk": ["-device", "ide-hd,id=d,drive=x"],
    "a disk of virtio": ["-device", "virtio-blk,id=d,drive=x"],
}
NODES = [
    *(
        "-blockdev",
        "driver=qcow2,node-name=new,read-only=on,file.driver=file,file.filename=b.qcow2",
    ),
    *("-blockdev", "driver=null-co,node-name=old"),
    *("-blockdev", "driver=null-co,node-name=used"),
    *("-device", "virtio-blk,drive=used"),
]


@pytest.mark.parametrize("origin", ["drive", "node"])
@pytest.mark.parametrize("kind", DEVICES)
def test_every_way_to_change_a_medium(folder, kind, origin):
    drive = ["-drive", "if=none,id=x,file=a.qcow2,cache=writethrough"]
    wanted = [word.replace("drive=x", "drive=old") for word in DEVICES[kind]]
    options = [*drive, *DEVICES[kind]] if origin == "drive" else wanted
    id_ = "/machine/peripheral/d/virtio-backend" if "virtio" in kind else "d"
    told = talk(folder, [*NODES, *options], [line.format(id=id_) for line in PLAIN])
    assert ("DEVICE_TRAY_MOVED" in told) == ("CD" in kind or "taken out" in kind)
    assert ("is not removable" in told) == (kind in ("a disk", "a disk of virtio"))


def test_an_empty_drive_is_filled(folder):
    options = [*NODES, "-device", "ide-cd,id=d", *CONTROLLER, "-device", "floppy,id=f"]
    talk(folder, options, [line.format(id="d") for line in PLAIN])
    talk(folder, options, [line.format(id="f") for line in PLAIN])


def test_a_drive_without_a_device_is_open_to_all(folder):
    lines = [
        line.replace('"id": "d"', '"device": "x"')
        for line in (each.format(id="d") for each in PLAIN)
        if "-medium" not in line or "change" in line
    ][:-1]  # a drive that nobody uses has permissions of its own way
    talk(folder, ["-drive", "if=none,id=x,file=a.qcow2"], lines)
    talk(folder, ["-drive", "if=none,id=x"], lines)


def test_bad_names_and_busy_media(folder):
    names = [
        "{}",
        '{"device": "x", "id": "d"}',
        '{"device": "absent"}',
        '{"id": "absent"}',
        '{"id": "/machine/peripheral"}',
        '{"id": ""}',
        '{"device": ""}',
        '{"device": "new"}',
        '{"id": "s"}',
    ]
    commands = [
        f"{command} {arguments}"
        for command in ("eject", "blockdev-open-tray", "blockdev-close-tray")
        for arguments in names
    ]
    commands += [
        'blockdev-remove-medium {"device": "x"}',
        'blockdev-insert-medium {"id": "d"}',
        'blockdev-change-medium {"id": "d"}',
        'blockdev-backup {"device": "x", "sync": "full", "target": "old", "speed": 1}',
        'eject {"device": "x"}',
        'blockdev-change-medium {"id": "d", "filename": "a.qcow2"}',
        'block-job-cancel {"device": "x"}',
    ]
    options = [*NODES, "-drive", "if=none,id=x,driver=null-co", *CONTROLLER]
    said = talk(folder, [*options, "-device", "ide-cd,drive=x,id=d"], commands)
    assert "is busy" in said


def test_the_human_monitor_changes_media(folder):
    lines = """
change
change d
change x absent
change x b.qcow2
info block x
change x b.qcow2 raw read-only
info block x
change x b.qcow2 qcow2 read-write
change x b.qcow2 qcow2 retain
change x b.qcow2 qcow2 foo
change x -f b.qcow2
change -f x b.qcow2
change x b.qcow2 foo
info block x
eject
eject x
eject -f x
eject absent
eject -x x
info block
eject v
change v b.qcow2
""".strip().splitlines()
    options = ["-drive", "if=none,id=x,file=a.qcow2", "-device", "ide-cd,drive=x,id=d"]
    options += ["-drive", "if=virtio,id=v,driver=null-co"]
    talk(folder, options, [f"hmp {line}" for line in lines])


DEFAULTS = """
-machine pc
-machine q35
-machine isapc
-machine none
-machine pc -nodefaults -drive driver=null-co
-machine pc -smp 3 -fda r.img
-machine pc -vga none -net none -cdrom r.img
-machine pc -serial null -serial null -nic user -drive if=floppy
-machine q35 -nographic -serial none -drive driver=null-co -drive driver=null-co
-machine pc -hdc r.img -snapshot
-machine pc -global floppy.unit=1
-machine pc -device ide-cd
-machine pc -device floppy
-machine pc -nic user -parallel none
-machine pc -nic none -vga std -hda r.img
""".strip().splitlines()


@pytest.mark.parametrize("line", DEFAULTS)
def test_drives_that_nobody_asked_for(folder, line):
    alike(folder, line.split(), ["query-block", "hmp info block"], [*BARE, "-S"])


def test_a_disk_for_controllers_in_different_threads(folder):
    options = ["-object", "iothread,id=t0", "-object", "iothread,id=t1"]
    options += ["-device", "virtio-scsi,id=s0,iothread=t0", "-device", "virtio-scsi,id=s1"]
    options += ["-device", "virtio-scsi,id=s2,iothread=t1", "-device", "lsi53c895a,id=s3"]
    options += ["-blockdev", "null-co,node-name=n,read-only=on"]
    plug = 'device_add {{"driver": "scsi-hd", "id": "{0}", "drive": "n", "bus": "{1}.0"}}'
    talk(
        folder,
        options,
        [
            *(plug.format("a", "s0"), plug.format("b", "s2"), plug.format("b", "s0")),
            *(plug.format("c", "s1"), plug.format("c", "s3")),
            'device_add {"driver": "virtio-blk", "id": "c", "drive": "n"}',
            'device_add {"driver": "virtio-blk", "id": "c", "drive": "n", "iothread": "t0"}',
            *('device_del {"id": "a"}', plug.format("c", "s2")),
        ],
    )
