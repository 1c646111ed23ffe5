"""CPUs, memory and mice of a machine: what is said of them, and what queries then tell."""

import re

import pytest
from compat.test_blockemu_qemu import OURS, REAL, conversation, endings
from compat.test_machine_facts import NONE

BARE = ["-nodefaults", "-display", "none", "-monitor", "none", "-S"]
LINES = """
-smp 0
-smp 1,maxcpus=0
-smp foo
-smp -1
-smp 1.5
-smp cpus=2,foo=1
-smp cpus=3,2
-smp 2,maxcpus=1
-smp 3,sockets=2,cores=2,threads=1
-smp 4,clusters=2
-smp 256
-smp 4,threads=2
-smp 99999999999999999999
-machine isapc -smp 2
-machine none -smp 2
-machine none -smp 1,dies=2
-machine microvm -smp 300
-machine microvm -smp 3,cores=2,sockets=2
-machine q35 -smp 288
-machine pc -smp 255,sockets=17,cores=5,threads=3
-machine pc-q35-6.1 -smp 3,cores=2
-machine pc-i440fx-6.1 -smp 5,threads=2
-smp 2 -smp cores=2
-m foo
-m -1
-m size=64,foo=1
-m 64,slots=2
-m 64,maxmem=32M
-m 64,slots=2,maxmem=64M
-m 64,slots=x,maxmem=1G
-m 64,slots=300,maxmem=1G
-m 1E
-m 99999999999999999999
-m 64 -m 128
-machine none -m 64
-machine pc,memory.size=x
-machine pc,memory-backend=absent
-object iothread,id=x -machine pc,memory-backend=x
-cpu foo
-cpu ,
-cpu qemu64,
-cpu qemu64,foo
-cpu qemu64,foo=1
-cpu qemu64,+foo
-cpu qemu64,level=x
-cpu qemu64,level=5
-cpu qemu64,tsc-frequency=x
-cpu qemu64,vendor=foo
-cpu EPYC-v1,family=300
-cpu host
-cpu max
-cpu qemu64-x86_64-cpu
-machine none -cpu foo
-machine none -cpu qemu64
""".strip().splitlines()
MACHINES = {
    "none": "-machine none -m 64",
    "isapc": "-machine isapc",
    "pc": "-machine pc -smp 2,maxcpus=4,cores=2 -m 1G,slots=2,maxmem=2G -cpu qemu32",
    "q35": "-machine q35 -smp 4,dies=2 -boot menu=on,splash-time=5",
    "microvm": "-machine microvm -smp 3 -m 65M",
    "an older one": "-machine pc-i440fx-6.1 -smp 4,maxcpus=6",
    "with memory of its own": (
        "-machine pc,memory-backend=x -object memory-backend-ram,id=x,size=1M"
    ),
}
QUESTIONS = """
query-cpus-fast
query-hotpluggable-cpus
query-memory-size-summary
query-memdev
query-mice
query-machines
hmp info cpus
hmp cpu 1
hmp info cpus
hmp cpu 9
human-monitor-command {"command-line": "info cpus", "cpu-index": 0}
human-monitor-command {"command-line": "info cpus", "cpu-index": 1}
human-monitor-command {"command-line": "info cpus", "cpu-index": -1}
hmp info hotpluggable-cpus
hmp info memory_size_summary
hmp info memdev
hmp info mice
hmp info numa
qom-get {"path": "/machine", "property": "smp"}
qom-get {"path": "/machine", "property": "memory"}
qom-get {"path": "/machine", "property": "boot"}
qom-get {"path": "/machine", "property": "memory-backend"}
qom-get {"path": "/machine/unattached/device[0]", "property": "type"}
qom-get {"path": "/machine/unattached/device[0]", "property": "socket-id"}
qom-get {"path": "/machine/unattached/device[2]", "property": "type"}
qom-get {"path": "/objects/pc.ram", "property": "size"}
qom-list {"path": "/objects"}
object-del {"id": "pc.ram"}
object-del {"id": "x"}
""".strip().splitlines()


@pytest.fixture
def folder(tmp_path, program):
    program("qemu-system-x86_64")
    return tmp_path


@pytest.mark.parametrize("line", LINES)
def test_what_is_said_of_hardware_is_taken_alike(folder, line):
    real, ours = endings([*BARE, *line.split()], folder)
    assert ours == real


def told(program, options, folder, commands, base=BARE):
    said, _ = conversation(program, options, folder, commands, base)
    masked = re.compile(r'("thread-id": |thread_id=)\d+(?=, "props|\\r|")')
    # A device that is gone says so when QEMU gets round to it.
    return [masked.sub(r"\1THREAD", line) for line in said if "DEVICE_DELETED" not in line]


@pytest.mark.parametrize("machine", MACHINES)
def test_machines_tell_of_their_hardware_alike(folder, machine):
    options = MACHINES[machine].split()
    real, ours = (told(program, options, folder, QUESTIONS) for program in (REAL, OURS))
    assert ours == real


MICE = """
query-mice
hmp mouse_set 0
hmp mouse_set 1
hmp mouse_set 3
query-mice
hmp info mice
device_del {"id": "b"}
query-mice
device_add {"driver": "usb-mouse", "id": "c"}
query-mice
hmp mouse_set 2
hmp info mice
device_del {"id": "v"}
query-mice
""".strip().splitlines()


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_mice_are_counted_as_they_come(folder, machine):
    devices = ["usb-ehci", "usb-tablet", "usb-mouse,id=b", "usb-kbd", "virtio-tablet-pci,id=v"]
    options = ["-machine", machine, *(word for each in devices for word in ("-device", each))]
    real, ours = (told(program, options, folder, MICE) for program in (REAL, OURS))
    assert ours == real
    assert "QEMU HID Mouse" in "".join(real)


def test_an_empty_machine_has_no_mouse(folder):
    real, ours = (told(program, [], folder, MICE[:4], NONE) for program in (REAL, OURS))
    assert ours == real
