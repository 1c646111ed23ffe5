"""What tools ask about memory, CPUs, displays and networks, none of which a machine has here."""

import re

import pytest
from compat.test_blockemu_qemu import OURS, REAL, conversation
from compat.test_machine_facts import NONE
from compat.test_media import alike

PC = ["-machine", "pc", "-nodefaults", "-display", "none", "-monitor", "none", "-S"]


@pytest.fixture
def folder(tmp_path, program):
    program("qemu-system-x86_64")
    return tmp_path


EVERYWHERE = """
add_client {"protocol": "vnc", "fdname": "x"}
announce-self
announce-self {"initial": 1, "max": 2, "rounds": 3, "step": 4}
calc-dirty-rate {"calc-time": 100}
calc-dirty-rate {"calc-time": 5, "mode": "foo"}
cancel-vcpu-dirty-limit
set-vcpu-dirty-limit {"dirty-rate": 5}
query-vcpu-dirty-limit
change-vnc-password {"password": "x"}
client_migrate_info {"protocol": "spice", "hostname": "x"}
client_migrate_info {"protocol": "foo", "hostname": "x", "port": 3}
display-reload {"type": "vnc"}
display-reload {"type": "vnc", "tls-certs": true}
display-reload {"type": "foo"}
display-update {"type": "vnc"}
dump-guest-memory {"paging": false, "protocol": "foo"}
dump-guest-memory {"paging": false, "protocol": "file:x", "format": "foo"}
query-dump
query-dump-guest-memory-capability
dumpdtb {"filename": "x"}
expire_password {"protocol": "vnc", "time": "now"}
expire_password {"protocol": "spice", "time": "now"}
expire_password {"protocol": "foo", "time": "now"}
set_password {"protocol": "vnc", "password": "x"}
set_password {"protocol": "spice", "password": "x"}
set_password {"protocol": "vnc", "password": "x", "connected": "fail"}
set_password {"protocol": "vnc", "password": "x", "connected": "keep", "display": "d"}
input-send-event {"device": "foo", "events": []}
send-key {"keys": [{"type": "qcode", "data": "a"}]}
send-key {"keys": []}
send-key {"keys": [{"type": "qcode", "data": "foo"}]}
send-key {"keys": [{"type": "number", "data": 70000}], "hold-time": 5}
memsave {"val": 0, "size": 1, "filename": "x", "cpu-index": 9}
query-colo-status
query-cpu-model-expansion {"type": "full", "model": {"name": "absent"}}
query-cpu-model-expansion {"type": "foo", "model": {"name": "absent"}}
query-memory-devices
query-rx-filter
query-rx-filter {"name": "x"}
query-sev
query-sev-attestation-report {"mnonce": "x"}
query-sev-capabilities
query-sev-launch-measure
sev-inject-launch-secret {"packet-header": "", "secret": ""}
query-sgx
query-sgx-capabilities
query-stats {"target": "vm"}
query-stats {"target": "vcpu", "vcpus": ["x"]}
query-stats {"target": "vm", "vcpus": ["x"]}
query-stats-schemas
query-stats-schemas {"provider": "kvm"}
query-vnc-servers
replay-break {"icount": 1}
replay-delete-break
replay-seek {"icount": 1}
screendump {"filename": "x"}
screendump {"filename": "x", "device": "absent"}
screendump {"filename": "x", "head": 1}
x-colo-lost-heartbeat
x-query-numa
x-query-opcount
x-query-profile
x-query-rdma
x-query-usb
x-query-virtio
""".strip().splitlines()
EMPTY = """
query-memdev
dump-guest-memory {"paging": false, "protocol": "file:x"}
query-dump
memsave {"val": 0, "size": 1, "filename": "x"}
x-query-irq
x-query-ramblock
x-query-roms
input-send-event {"events": []}
input-send-event {"events": [{"type": "btn", "data": {"down": true, "button": "left"}}]}
input-send-event {"events": [{"type": "abs", "data": {"axis": "x", "value": 5}}]}
stop
input-send-event {"events": []}
""".strip().splitlines()
DEVICES = """
screendump {"filename": "x", "device": "v"}
screendump {"filename": "x", "device": "v", "head": 2}
x-query-virtio
input-send-event {"events": [{"type": "btn", "data": {"down": true, "button": "left"}}]}
""".strip().splitlines()


@pytest.mark.parametrize("base", [NONE, PC], ids=["none", "pc"])
def test_what_is_not_there_is_told_alike(folder, base):
    alike(folder, [], EVERYWHERE, base)


def test_an_empty_machine_says_that_it_has_no_memory(folder):
    alike(folder, [], EMPTY, NONE)


def test_what_a_machine_with_devices_says(folder):
    more = ["-device", "virtio-scsi,id=v", "-device", "virtio-scsi,id=w"]
    alike(folder, more, DEVICES, PC)


def test_writes_to_memory_are_not_measured(folder):
    def told(program):
        said, _ = conversation(program, [], folder, ["query-dirty-rate"], NONE)
        return [re.sub(r'"start-time": \d+', "TIME", line) for line in said]

    assert told(OURS) == told(REAL)


MONITOR = """
qom-list
qom-list /absent
qom-list /chardevs
qom-get /machine/peripheral/v addr
qom-get /machine/peripheral/v disable-legacy
qom-get /machine/peripheral/v absent
qom-get /absent x
qom-get /machine/peripheral/v
qom-set /machine/peripheral/v addr 5
qom-set /objects/i poll-max-ns 5
qom-set -j /objects/i poll-max-ns 6
qom-set -j /objects/i poll-max-ns "x"
qom-set /objects/i poll-max-ns x
qom-get /objects/i poll-max-ns
qom-set /absent x y
info qom-tree /absent
info qom-tree /chardevs
info blockstats
chardev-add null,id=c
chardev-add foo,id=c
chardev-add null,id=c
chardev-add null
chardev-add ringbuf,id=r,size=64
chardev-change c ringbuf,size=64
chardev-change absent null
ringbuf_write r hello
ringbuf_read r 10
ringbuf_read r 10
ringbuf_write absent x
ringbuf_read absent 5
getfd x
closefd x
dump-guest-memory
dump-guest-memory -q x
info dump
sendkey a
sendkey ctrl-alt-f1 100
sendkey foo
sendkey 0x20
sendkey <
info sev
info sgx
info stats vm
info stats foo
info dirty_rate
info vcpu_dirty_limit
info opcount
info profile
info rdma
info usb
info usernet
info capture
info virtio
balloon 5
dumpdtb x
x_colo_lost_heartbeat
help qom-set
help sendkey
help info stats
help dump-guest-memory
""".strip().splitlines()


def test_the_human_monitor_says_it_alike(folder):
    more = ["-device", "virtio-scsi,id=v", "-object", "iothread,id=i"]
    more += ["-drive", "if=none,id=d,driver=null-co"]
    alike(folder, more, [f"hmp {line}" for line in MONITOR], PC)


def test_the_human_monitor_says_that_there_is_no_memory(folder):
    lines = ["info irq", "info ramblock", "dump-guest-memory x", "info dump", "memsave 0 5 x"]
    lines += ["info virtio", "info sgx"]
    alike(folder, [], [f"hmp {line}" for line in lines], NONE)
