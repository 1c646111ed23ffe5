"""Devices that have nothing to do with disks look and behave like QEMU's."""

import json
import re

import pytest
from compat.test_blockemu_qemu import OURS, REAL, conversation, normal, run
from compat.test_media import alike

from blockemu.machine.type_facts import device_facts
from blockemu.machine.types import BY_NAME

BASE = ["-display", "none", "-monitor", "none", "-S", "-nodefaults"]
PORTS = ("ioh3420", "pcie-root-port", "xio3130-downstream", "cxl-rp", "cxl-downstream")
# What one machine has once, what asks the host, or numbers itself by where it is.
APART = {
    *("rocker", "qxl-vga", "ati-vga", "cirrus-vga", "vmware-svga", "virtio-vga", "pxb-pcie"),
    *("virtio-balloon-pci-non-transitional", "virtio-balloon-pci-transitional", "sdhci-pci"),
    *("megasas", "megasas-gen2", "mptsas1068", "virtio-iommu-pci", "AC97", "ES1370"),
    *("usb-host", "usb-audio", "isa-debugcon", "i8042", "mc146818rtc", "isa-vga"),
    *("isa-cirrus-vga", "isa-applesmc", "pc-testdev", "isa-ide", "cs4231a", "sb16"),
}
# Of memory there is none here; the address of a SAS controller is made of its slot.
UNLIKE = re.compile(r"below-4g-mem-size = [^\\\\]*")


def of_bus(bus):
    rows = ((name, facts) for name, facts in device_facts().items() if name not in APART)
    return [n for n, facts in rows if facts.get("bus") == bus and fits(n, facts)]


def fits(name, facts):
    return "refusal" not in facts and name not in BY_NAME


def plugged(names):
    for i, name in enumerate(names, 1):
        more = f",slot={i}" if name in PORTS else ""
        more += ",chassis_nr=9" if name == "pci-bridge-seat" else ""
        yield from ("-device", f"{name},id=d{name.replace('.', '_')}{more}")


PCI = of_bus("PCI")
PARTS = [PCI[i : i + 14] for i in range(0, len(PCI), 14)]


@pytest.fixture
def folder(tmp_path, program):
    program("qemu-system-x86_64")
    return tmp_path


def same_views(folder, options):
    def told(program):
        commands = ["hmp info qtree", "query-pci", "hmp info pci", "hmp info usb"]
        commands += ["hmp info network", "query-rx-filter"]
        said, _ = conversation(program, options, folder, commands, BASE)
        return [UNLIKE.sub("MEMORY", line) for line in said]

    mine = told(OURS)
    assert mine == told(REAL)
    return mine


@pytest.mark.parametrize("part", range(len(PARTS)))
@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_devices_of_pci_look_alike(folder, machine, part):
    said = same_views(folder, ["-machine", machine, *plugged(PARTS[part])])
    assert all(f"d{name.replace('.', '_')}" in "".join(said) for name in PARTS[part])


def test_devices_of_usb_look_alike(folder):
    hosts = ["-device", "nec-usb-xhci,p2=15,p3=15"]
    same_views(folder, ["-machine", "pc", *hosts, *plugged(of_bus("usb-bus"))])
    assert len(of_bus("usb-bus")) > 6


def test_devices_of_isa_look_alike(folder):
    same_views(folder, ["-machine", "pc", *plugged(of_bus("ISA"))])


DOMAIN = [
    "pcie-root-port,port=16,chassis=1,id=pci.1,bus=pcie.0,multifunction=on,addr=0x2",
    "pcie-root-port,port=17,chassis=2,id=pci.2,bus=pcie.0,addr=0x2.0x1",
    "pcie-root-port,port=18,chassis=3,id=pci.3,bus=pcie.0,addr=0x2.0x2",
    "pcie-root-port,port=19,chassis=4,id=pci.4,bus=pcie.0,addr=0x2.0x3",
    "pcie-root-port,port=20,chassis=5,id=pci.5,bus=pcie.0,addr=0x2.0x4",
    "qemu-xhci,p2=15,p3=15,id=usb,bus=pci.2,addr=0x0",
    "virtio-serial-pci,id=virtio-serial0,bus=pci.3,addr=0x0",
    "virtio-blk-pci,bus=pci.4,addr=0x0,drive=disk,id=virtio-disk0,bootindex=1",
    "virtio-net-pci,netdev=hostnet0,id=net0,mac=52:54:00:f6:52:1c,bus=pci.1,addr=0x0",
    "virtserialport,bus=virtio-serial0.0,nr=1,chardev=charchannel0,id=channel0,name=org.qemu.guest_agent.0",
    "usb-tablet,id=input0,bus=usb.0,port=1",
    "VGA,id=video0,bus=pcie.0,addr=0x1",
    "virtio-balloon-pci,id=balloon0,bus=pci.5,addr=0x0",
    "isa-serial,chardev=charserial0,id=serial0",
    "vmcoreinfo",
    "i6300esb,id=watchdog0",
]
MACHINE = ["-machine", "q35", "-blockdev", "driver=null-co,size=104857600,node-name=disk"]
MACHINE += ["-netdev", "user,id=hostnet0", "-chardev", "null,id=charchannel0"]
MACHINE += ["-chardev", "null,id=charserial0"]
MACHINE += [word for device in DOMAIN for word in ("-device", device)]


def test_a_machine_as_libvirt_makes_it_looks_alike(folder):
    same_views(folder, MACHINE)


def test_its_devices_have_the_same_values(folder):
    names = ["pci.1", "usb", "virtio-serial0", "virtio-disk0", "net0", "channel0", "input0"]
    names += ["video0", "balloon0", "serial0", "watchdog0"]
    paths = [f"/machine/peripheral/{name}" for name in names]
    paths += [f"/machine/peripheral/{name}/virtio-backend" for name in ("net0", "balloon0")]

    def listed(program):
        commands = [f'qom-list {{"path": "{path}"}}' for path in paths]
        said, _ = conversation(program, MACHINE, folder, commands, BASE)
        lists = [json.loads(line)["return"] for line in said if line.startswith('{"return": [')]
        return [{(p["name"], p["type"]) for p in each} for each in lists]

    mine, theirs = listed(OURS), listed(REAL)
    assert len(mine) == len(theirs) == len(paths)
    unlike = re.compile(r"memory-region|irq|child<serial|child<base-xhci|hotplug-handler|<device>")
    for one, other in zip(mine, theirs, strict=True):
        assert {row for row in one ^ other if not unlike.search(row[1])} == set()
    commands = [
        f'qom-get {{"path": "{path}", "property": "{name}"}}'
        for path, rows in zip(paths, mine, strict=True)
        for name, type_ in sorted(rows)
        if "[" not in name and type_ not in ("guest statistics", "child<serial>")
    ]
    assert len(commands) > 250
    alike(folder, MACHINE, commands, BASE)


def test_they_come_and_go_while_the_machine_is_on(folder):
    commands = """
device_add {"driver": "virtio-net-pci", "bus": "pci.5"}
device_add {"driver": "virtio-net-pci", "id": "n", "bus": "pcie.0"}
device_add {"driver": "usb-kbd", "id": "k"}
device_add {"driver": "virtio-rng-pci", "id": "r", "bus": "pci.6"}
device_add {"driver": "virtserialport", "id": "p"}
hmp info network
hmp info usb
device_del {"id": "r"}
device_del {"id": "net0"}
device_del {"id": "net0"}
device_del {"id": "watchdog0"}
device_del {"id": "video0"}
device_del {"id": "serial0"}
device_del {"id": "absent"}
qom-set {"path": "balloon0", "property": "guest-stats-polling-interval", "value": 5}
qom-get {"path": "balloon0", "property": "guest-stats-polling-interval"}
qom-set {"path": "balloon0", "property": "deflate-on-oom", "value": true}
""".strip().splitlines()
    told = alike(folder, [*MACHINE, "-device", "pcie-root-port,id=pci.6,chassis=9"], commands, BASE)
    assert told.count('"error"') > 5


REFUSED = [
    "virtserialport,nr=1",
    "virtserialport,nr=40",
    "virtserialport,chardev=charserial0",
    "virtserialport,chardev=absent",
    "virtio-net-pci,netdev=absent",
    "virtio-net-pci,netdev=hostnet0",
    "virtio-net-pci,netdev=",
    "virtio-net-pci,mac=absent",
    "virtio-net-pci,mac=5:5:0:1:3:5",
    "virtio-net-pci,mq=foo",
    "virtio-net-pci,rx_queue_size=3",
    "virtio-net-pci,tx_queue_size=4096",
    "virtio-net-pci,duplex=foo",
    "virtio-net-pci,speed=-5",
    "virtio-net-pci,absent=1",
    "virtio-rng-pci,rng=absent",
    "virtio-rng-pci,period=0",
    "virtio-rng-pci,max-bytes=-1",
    "virtio-serial-pci,max_ports=900",
    "virtio-balloon-pci",
    "usb-tablet,usb_version=3",
    "usb-tablet,port=99",
    "usb-tablet,bus=absent",
    "usb-tablet,bus=pci.1",
    "usb-kbd,absent=foo",
    "intel-hda,audiodev=absent",
    "vfio-pci",
    "vhost-user-fs-pci",
    "virtio-gpu-gl-pci",
    "vmcoreinfo",
    "pvpanic",
    "qxl,ram_size=foo",
    "pcie-root-port,x-width=3",
    "pcie-root-port,x-speed=7",
    "pcie-root-port,chassis=1",
    "VGA",
    "x86_64-cpu",
    "device",
    "ICH9-LPC",
    "PCI",
    "secret",
    "absent",
    "pci-bridge-seat",
]


def test_what_they_will_not_have_is_told_alike(folder):
    commands = []
    for line in REFUSED:
        name, *rest = line.split(",")
        options = {"driver": name} | dict(each.split("=") for each in rest)
        commands.append(f"device_add {json.dumps(options)}")
    spare = ["-device", "pcie-pci-bridge,id=spare"]
    told = alike(folder, [*MACHINE, *spare], commands, BASE)
    assert told.count('"error"') == len(REFUSED)


AT_START = [
    "vfio-pci",
    "virtio-net-pci,netdev=absent",
    "usb-tablet",
    "virtio-9p-pci",
    "pci-bridge-seat",
    "x86_64-cpu",
    "pcie-root-port -device pcie-root-port",
    "virtio-rng-pci,rng=absent",
    "virtio-balloon -device virtio-balloon",
    "virtio-net -device e1000,mac=52:54:00:12:34:99,id=named",
]


@pytest.mark.parametrize("line", AT_START)
def test_at_the_start_they_are_refused_or_warned_of_alike(folder, line):
    options = ["-machine", "q35", "-nodefaults", "-display", "none", "-S", "-monitor", "stdio"]
    real, ours = (
        run(program, [*options, "-device", *line.split()], folder, "quit\n")
        for program in (REAL, OURS)
    )
    assert (ours.returncode, normal(ours.stderr)) == (real.returncode, normal(real.stderr))
    assert real.stderr
