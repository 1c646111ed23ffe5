"""What devices have: their properties, the tree of buses, PCI devices; values for all of a type."""

import json
import re

import pytest
from compat.test_blockemu_qemu import OURS, REAL, conversation, normal, run
from compat.test_media import alike

BASE = ["-display", "none", "-monitor", "none", "-S"]
NULL = "driver=null-co,size=100M,read-zeroes=on"
DEVICES = [
    "virtio-scsi,id=vs",
    "scsi-hd,drive=d,id=sd,serial=0123456789012345678901234",
    "scsi-hd,drive=h,id=sh,lun=1,logical_block_size=4096,physical_block_size=4096",
    "scsi-cd,id=sc",
    "pci-bridge,chassis_nr=1,id=br",
    "virtio-blk,drive=e,id=vb,bootindex=3,num-queues=2",
    "lsi,id=ls,bus=br,addr=3",
    "virtio-scsi-pci-non-transitional,bus=br,addr=4",
    "virtio-blk-pci-transitional,drive=g,addr=9.1,share-rw=on",
    "floppy,id=fl,drive-type=144",
    "ide-hd,drive=f,id=ih",
    "ide-cd,id=ic",
]
PLUGGED = [word for name in "defgh" for word in ("-drive", f"if=none,id={name},{NULL}")]
PLUGGED += [word for device in DEVICES for word in ("-device", device)]
MACHINES = [
    ["-machine", "pc", "-nodefaults"],
    ["-machine", "pc"],
    ["-machine", "pc", "-nodefaults", *PLUGGED],
    ["-machine", "pc", "-smp", "2", "-vga", "none", "-nic", "none", "-drive", f"index=1,{NULL}"],
    ["-machine", "isapc", "-nodefaults"],
    ["-machine", "q35", "-nodefaults"],
    ["-machine", "q35", "-drive", f"{NULL}", "-device", "virtio-scsi", "-device", "scsi-cd"],
    ["-machine", "none"],
]
# Of memory there is none here, and nobody plugs devices into it.
UNLIKE = re.compile(
    r"memory-region|link<irq>|child<irq>|hotplug-handler|pci-hole|bsel|child<\w+-x86_64-cpu>"
)


@pytest.fixture
def folder(tmp_path, program):
    program("qemu-system-x86_64")
    return tmp_path


@pytest.mark.parametrize("options", MACHINES, ids=lambda options: " ".join(options)[:60])
def test_trees_of_buses_and_pci_devices_look_alike(folder, options):
    def told(program):
        commands = ["hmp info qtree", "query-pci", "hmp info pci"]
        said, _ = conversation(program, options, folder, commands, BASE)
        return [re.sub(r"below-4g-mem-size = [^\\]*", "MEMORY", line) for line in said]

    assert told(OURS) == told(REAL)


@pytest.mark.parametrize("driver", ["virtio-blk", "scsi-hd", "floppy", "ide-cd", "pci-bridge"])
def test_help_of_a_type_is_alike(folder, driver):
    real, ours = (run(p, ["-device", f"{driver},help"], folder, "") for p in (REAL, OURS))
    there = {line for line in real.stdout.splitlines() if "<child<" not in line}
    assert set(ours.stdout.splitlines()) >= there
    assert len(there) > 5


def test_objects_of_devices_have_the_same_properties_with_the_same_values(folder):
    ids = [part.split("id=")[1].split(",")[0] for part in DEVICES if "id=" in part]
    paths = [f"/machine/peripheral/{name}" for name in ids]
    paths += [f"/machine/peripheral/{name}/virtio-backend" for name in ("vs", "vb")]
    paths += ["/machine/unattached/device[12]", "/machine/unattached/device[17]"]
    paths += ["/machine/i440fx/pci.0", "/machine/peripheral/vs/virtio-bus", "/machine/peripheral"]
    paths += ["/machine/peripheral/vs/virtio-backend/vs.0", "/machine/peripheral/br/br"]
    options = ["-machine", "pc", "-nodefaults", *PLUGGED]

    def listed(program):
        commands = [f'qom-list {{"path": "{path}"}}' for path in paths]
        said, _ = conversation(program, options, folder, commands, BASE)
        lists = [json.loads(line)["return"] for line in said if line.startswith('{"return": [')]
        assert len(lists) == len(paths)
        return [
            sorted((p["name"], p["type"]) for p in each if not UNLIKE.search(p["name"] + p["type"]))
            for each in lists
        ]

    mine = listed(OURS)
    assert mine == listed(REAL)
    names = [(path, name) for path, each in zip(paths, mine, strict=True) for name, _ in each]
    commands = [
        f'qom-get {{"path": "{path}", "property": "{name}"}}'
        for path, name in names
        if "[" not in name
    ]
    assert len(commands) > 300
    alike(folder, options, commands, BASE)


SET = """
qom-set {"path": "vb", "property": "serial", "value": "x"}
qom-set {"path": "vb", "property": "bootindex", "value": 4}
qom-get {"path": "vb", "property": "bootindex"}
qom-set {"path": "sd", "property": "bootindex", "value": 4}
qom-set {"path": "sd", "property": "bootindex", "value": "x"}
qom-set {"path": "sd", "property": "share-rw", "value": true}
qom-set {"path": "sd", "property": "hotplugged", "value": true}
qom-set {"path": "sd", "property": "parent_bus", "value": ""}
qom-set {"path": "sd", "property": "realized", "value": true}
qom-set {"path": "sd", "property": "absent", "value": true}
qom-get {"path": "sd", "property": "absent"}
qom-get {"path": "/machine/peripheral/vs/virtio-backend", "property": "legacy-iothread"}
qom-set {"path": "/machine/unattached/device[17]", "property": "addr", "value": "5"}
device_del {"id": "/machine/unattached/device[3]"}
device_del {"id": "/machine/unattached/device[12]"}
device_del {"id": "/machine/i440fx"}
device_add {"driver": "isa-fdc"}
device_add {"driver": "virtio-scsi", "id": "n", "addr": "1f"}
device_add {"driver": "virtio-scsi", "id": "m", "addr": "1f"}
device_add {"driver": "virtio-scsi", "id": "m", "addr": "1f.1"}
qom-get {"path": "n", "property": "addr"}
qom-get {"path": "n", "property": "hotplugged"}
qom-get {"path": "n", "property": "legacy-addr"}
""".strip().splitlines()


def test_properties_of_devices_that_live_cannot_be_changed(folder):
    alike(folder, ["-machine", "pc", "-nodefaults", *PLUGGED], SET, BASE)


REFUSED = """
scsi-hd,id=x,drive=d,logical_block_size=3
scsi-hd,drive=d,logical_block_size=4194304
scsi-hd,drive=d,logical_block_size=1025
scsi-hd,drive=d,min_io_size=3
scsi-hd,drive=d,opt_io_size=3
scsi-hd,drive=d,discard_granularity=3
scsi-hd,drive=d,channel=3
scsi-hd,drive=d,scsi-id=300
scsi-hd,drive=d,lun=30000
scsi-hd,drive=d,cyls=3
scsi-hd,drive=d,wwn=0x5000 scsi-hd,drive=e,scsi-id=0,lun=0
scsi-hd,drive=d,id=x scsi-hd,drive=e,scsi-id=0,lun=0
lsi,id=l scsi-hd,drive=d,bus=l.0,lun=1
lsi,id=l scsi-hd,drive=d,bus=l.0,scsi-id=8
ide-hd,drive=d,unit=2
ide-hd,drive=d,unit=1 ide-hd,drive=e,unit=1
ide-hd,drive=d,discard_granularity=1024
ide-hd,drive=d,logical_block_size=4096,physical_block_size=4096
ide-hd,drive=d,logical_block_size=4096,physical_block_size=4096,discard_granularity=0
ide-hd,drive=d,heads=17,cyls=3,secs=4
ide-hd,drive=d,bios-chs-trans=foo
virtio-blk,drive=d,num-queues=0
virtio-blk,drive=d,queue-size=2
virtio-blk,drive=d,queue-size=2048
virtio-blk,drive=d,queue-size=5
virtio-blk,drive=d,addr=1
virtio-blk,drive=d,addr=20
virtio-blk,drive=d,addr=zz
virtio-blk,drive=d,addr=01.9
virtio-blk,drive=d,addr=5,id=x virtio-blk,drive=e,addr=05.0
virtio-blk,drive=d,max-discard-sectors=0
virtio-blk,drive=d,max-write-zeroes-sectors=0
virtio-blk,drive=d,disable-legacy=foo
virtio-blk,drive=d,disable-modern=on,disable-legacy=on
virtio-blk,drive=d,acpi-index=70000
virtio-scsi,num_queues=2000
virtio-scsi,virtqueue_size=1
floppy,drive=d,drive-type=foo
floppy,drive=d,unit=5
floppy,drive=d floppy,drive=e floppy
floppy,drive=d,unit=1 floppy,drive=e,unit=1
floppy,drive=d,bootindex=1
floppy,drive=d,logical_block_size=4096
floppy,drive=d,physical_block_size=1024
pci-bridge,chassis_nr=1,addr=1.1
""".strip().splitlines()


@pytest.mark.parametrize("devices", REFUSED)
def test_what_a_device_will_not_have_is_told_alike(folder, devices):
    options = ["-machine", "pc", "-nodefaults", "-display", "none", "-S"]
    options += ["-drive", f"if=none,id=d,{NULL}", "-drive", f"if=none,id=e,{NULL}"]
    options += ["-device", "virtio-scsi"]
    options += [word for device in devices.split() for word in ("-device", device)]
    real, ours = (run(program, options, folder, "") for program in (REAL, OURS))
    assert (ours.returncode, normal(ours.stderr)) == (real.returncode, normal(real.stderr))
    assert real.returncode == 1


GLOBALS = """
-global scsi-hd.vendor=ACME -device scsi-hd,drive=d,id=x
-global driver=scsi-hd,property=share-rw,value=on -device scsi-hd,drive=d,id=x
-global scsi-disk-base.share-rw=on -device scsi-hd,drive=d,id=x
-global scsi-device.lun=3 -device scsi-hd,drive=d,id=x
-global scsi-hd.share-rw=foo -device scsi-hd,drive=d,id=x
-global scsi-hd.absent=on -device scsi-hd,drive=d,id=x
-global scsi-hd.drive=d -device scsi-hd,id=x
-global scsi-hd.drive=d -device scsi-hd,id=x,drive=e
-global scsi-hd.drive=nope -device scsi-hd,id=x
-global scsi-hd.logical_block_size=3 -device scsi-hd,id=x,drive=d
-global virtio-blk-pci.serial=abc -device virtio-blk,id=x,drive=d
-global virtio-blk-device.serial=abc -device virtio-blk,id=x,drive=d
-global virtio-blk-pci.serial=abc -device virtio-blk,id=x,drive=d,serial=def
-global scsi-hd
-global scsi-hd.vendor
-global driver=scsi-hd,property=vendor
-global isa-fdc.fallback=144 -device floppy,id=x
-global isa-fdc.driveA=d -device floppy,id=x
-global floppy.drive-type=120 -fda nothing -device floppy,id=x
""".strip().splitlines()


@pytest.mark.parametrize("line", GLOBALS)
def test_values_for_all_devices_of_a_type(folder, line):
    options = ["-machine", "pc", "-nodefaults", "-display", "none", "-S", "-monitor", "none"]
    options += ["-drive", f"if=none,id=d,{NULL}", "-drive", f"if=none,id=e,{NULL}"]
    options += ["-device", "virtio-scsi", *line.split(), "-qmp", "stdio"]
    asked = ["vendor", "share-rw", "lun", "drive", "serial", "drive-type"]
    said = '{"execute": "qmp_capabilities"}' + "".join(
        f'{{"execute": "qom-get", "arguments": {{"path": "x", "property": "{name}"}}}}'
        for name in asked
    )
    real, ours = (run(p, options, folder, said + '{"execute": "quit"}') for p in (REAL, OURS))
    assert (ours.returncode, normal(ours.stderr)) == (real.returncode, normal(real.stderr))
    replies = [
        [line for line in normal(done.stdout).splitlines() if "return" in line or "error" in line]
        for done in (real, ours)
    ]
    assert replies[1] == replies[0]


FLOPPIES = [
    ["-fda", "f.img"],
    ["-fdb", "f.img"],
    ["-drive", "if=floppy,file=f.img,format=raw,index=1", "-nodefaults"],
    ["-drive", f"if=none,id=d,{NULL}", "-device", "floppy,drive=d"],
    ["-fda", "f.img", "-drive", f"if=none,id=d,{NULL}", "-global", "floppy.drive=d"],
    ["-fdb", "f.img", "-drive", f"if=none,id=d,{NULL}", "-device", "floppy,drive=d,unit=1"],
]


@pytest.mark.parametrize("sectors", [1440, 2880, 2400, 5760, 720, 7])
@pytest.mark.parametrize("options", FLOPPIES, ids=lambda options: " ".join(options)[:40])
def test_floppy_drives_are_of_the_type_of_what_is_in_them(folder, options, sectors):
    (folder / "f.img").write_bytes(bytes(sectors * 512))
    said = "info qtree\ninfo block\nquit\n"
    arguments = ["-machine", "pc", "-display", "none", "-S", "-serial", "none", *options]
    real, ours = (
        run(program, [*arguments, "-monitor", "stdio"], folder, said) for program in (REAL, OURS)
    )
    assert (ours.returncode, normal(ours.stderr)) == (real.returncode, normal(real.stderr))
    kept = [
        re.findall(r"(?:unit|drive-type|drive) = .*|floppy\d(?: \(#)?|dev: floppy.*", done.stdout)
        for done in (real, ours)
    ]
    assert kept[1] == kept[0]
    assert real.returncode or len(kept[0]) > 3
