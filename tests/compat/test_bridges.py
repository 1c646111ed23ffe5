"""PCI bridges, what sits behind them, and values that the properties of devices do not take."""

import json

import pytest
from compat.test_blockemu_qemu import OURS, REAL, conversation, normal, run
from compat.test_media import talk

COLD = ["-device", "pci-bridge,id=b,chassis_nr=1", "-device", "lsi,bus=b,id=h0"]
COLD += ["-device", "virtio-scsi-pci,bus=b,addr=0x1f,id=s"]
COLD += ["-drive", "if=none,id=d,driver=null-co,size=1M,read-zeroes=on"]
COLD += ["-device", "scsi-hd,drive=d,bus=s.0,id=disk"]
TALK = """
query-block
device_add {"driver": "pci-bridge", "id": "c"}
device_add {"driver": "pci-bridge", "id": "c", "chassis_nr": "2"}
device_add {"driver": "lsi", "id": "h1", "bus": "b"}
device_add {"driver": "lsi", "id": "h2", "bus": "c"}
device_add {"driver": "lsi", "id": "h2", "bus": "c", "addr": "0.1"}
device_add {"driver": "virtio-scsi-pci", "id": "h2", "bus": "c", "addr": "0"}
device_add {"driver": "lsi", "id": "h2", "bus": "c", "addr": "1"}
device_add {"driver": "virtio-scsi-pci", "id": "h3", "bus": "c", "addr": "0x1f"}
device_add {"driver": "lsi", "id": "h4", "bus": "c.0"}
query-block
"""
LEAVE = """
device_add {"driver": "pci-bridge", "id": "c", "chassis_nr": "2"}
device_add {"driver": "lsi", "id": "h1", "bus": "b"}
device_add {"driver": "lsi", "id": "h2", "bus": "c", "addr": "1"}
device_add {"driver": "virtio-scsi-pci", "id": "h3", "bus": "c", "addr": "0x1f"}
device_del {"id": "h2"}
device_del {"id": "h1"}
device_del {"id": "b"}
device_del {"id": "c"}
device_del {"id": "c"}
system_reset
device_del {"id": "b"}
"""


@pytest.fixture
def folder(tmp_path, program):
    program("qemu-system-x86_64")
    return tmp_path


def test_devices_behind_bridges_come_and_go_alike(folder):
    told = talk(folder, COLD, TALK.strip().splitlines())
    assert "Unsupported PCI slot 0" in told
    assert "Bridge chassis not specified" in told


def test_what_was_plugged_in_leaves_and_a_bridge_from_the_start_stays(folder):
    """QEMU's events come after a grace period of its own, so ours are compared with a record."""
    commands = LEAVE.strip().splitlines()
    said, _ = conversation(OURS, ["-nodefaults", *COLD], folder, commands)
    told = [json.loads(line.replace("TIME", "")) for line in said]
    gone = [each["data"]["path"] for each in told if each.get("event") == "DEVICE_DELETED"]
    assert [path.removeprefix("/machine/peripheral/") for path in gone] == [
        "h2", "h3/virtio-backend", "h3", "c", "h1",
    ]  # fmt: skip
    assert [each["error"]["desc"] for each in told if "error" in each] == [
        "Device c is already in the process of unplug",
        "Device b is already in the process of unplug",
    ]


REFUSED = [
    ["pci-bridge"],
    ["pci-bridge,chassis_nr=0"],
    ["pci-bridge,chassis_nr=300"],
    ["pci-bridge,chassis_nr=-1"],
    ["pci-bridge,chassis_nr=x"],
    ["pci-bridge,chassis_nr=1,msi=foo"],
    ["pci-bridge,chassis_nr=1,io-reserve=x"],
    ["pci-bridge,chassis_nr=1,foo=1"],
    ["pci-bridge,chassis_nr=1", "lsi,bus=pci.2"],
    ["pci-bridge,chassis_nr=1,id=b", "lsi,bus=b.0"],
    ["virtio-scsi-pci,id=s", "pci-bridge,id=b,chassis_nr=1,bus=s.0"],
    ["lsi", "scsi-hd,drive=d,logical_block_size=x"],
    ["lsi", "scsi-hd,drive=d,bootindex=x"],
    ["lsi", "scsi-hd,drive=d,bootindex=99999999999"],
    ["lsi", "scsi-hd,drive=d,scsi-id=-1"],
    ["lsi", "scsi-hd,drive=d,rotation_rate=70000"],
    ["lsi", "scsi-hd,drive=d,wwn=0x1ffffffffffffffff"],
    ["virtio-blk,drive=d,num-queues="],
    ["virtio-blk,drive=d,romsize=12k"],
]


@pytest.mark.parametrize("devices", REFUSED, ids=" ".join)
def test_what_is_wrong_with_a_device_is_told_alike(folder, devices):
    options = ["-nodefaults", "-display", "none", "-S"]
    options += ["-drive", "if=none,id=d,driver=null-co,size=1M,read-zeroes=on"]
    options += [word for device in devices for word in ("-device", device)]
    real, ours = (run(program, options, folder, "") for program in (REAL, OURS))
    assert (ours.returncode, normal(ours.stderr)) == (real.returncode, normal(real.stderr))
    assert real.returncode == 1
