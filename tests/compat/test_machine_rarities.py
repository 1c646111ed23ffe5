"""What tools seldom ask: networks, Xen, switches, virtqueues, nodes of memory."""

import json
import re

import pytest
from compat.test_blockemu_qemu import OURS, REAL, conversation
from compat.test_machine_facts import NONE
from compat.test_machine_reports import PC
from compat.test_media import alike


@pytest.fixture
def folder(tmp_path, program):
    program("qemu-system-x86_64")
    return tmp_path


SELDOM = """
xen-set-global-dirty-log {"enable": true}
xen-set-global-dirty-log
xen-set-replication {"enable": true}
xen-set-replication {"enable": true, "primary": true}
xen-set-replication {"enable": false, "primary": false, "failover": false}
xen-set-replication {"enable": true, "primary": true, "failover": true}
xen-set-replication {"enable": false, "primary": true, "failover": true}
query-xen-replication-status
xen-colo-do-checkpoint
xen-load-devices-state {"filename": "/absent/x"}
xen-save-devices-state {"filename": "/absent/x"}
query-rocker {"name": "r"}
query-rocker
query-rocker-ports {"name": "r"}
query-rocker-of-dpa-flows {"name": "r", "tbl-id": 1}
query-rocker-of-dpa-flows {"name": "r", "tbl-id": -1}
query-rocker-of-dpa-groups {"name": "r", "type": 1}
query-rocker-of-dpa-groups {"name": "r", "type": 256}
x-query-virtio-status {"path": "/x"}
x-query-virtio-status {"path": "/machine"}
x-query-virtio-queue-status {"path": "/x", "queue": 0}
x-query-virtio-queue-status {"path": "/x", "queue": 65536}
x-query-virtio-vhost-queue-status {"path": "/x", "queue": 0}
x-query-virtio-queue-element {"path": "/x", "queue": 0, "index": 3}
query-display-options
set-numa-node {"type": "node"}
set-numa-node {"type": "node", "mem": -1}
set-numa-node {"type": "foo"}
set-numa-node {"type": "dist", "src": 1, "dst": 2}
set-numa-node {"type": "dist", "src": 1, "dst": 2, "val": 4}
set-numa-node {"type": "cpu", "die-id": 0}
set-numa-node {"type": "hmat-cache", "node-id": 0, "size": 1, "level": 1}
pmemsave {"val": 0, "size": 1, "filename": "/absent/x"}
pmemsave {"val": 0, "size": 1}
""".strip().splitlines()


@pytest.mark.parametrize("base", [NONE, PC], ids=["none", "pc"])
def test_what_is_seldom_asked_is_answered_alike(folder, base):
    alike(folder, [], SELDOM, base)


NETWORKS = """
netdev_add {"type": "user", "id": "n0"}
netdev_add {"type": "user", "id": "n0"}
netdev_add {"type": "user"}
netdev_add {"id": "u"}
netdev_add {"type": "foo", "id": "u"}
netdev_add {"type": "none", "id": "u"}
netdev_add {"type": "nic", "id": "u"}
netdev_add {"type": "netmap", "id": "u", "ifname": "x"}
netdev_add {"type": "user", "id": "1u"}
netdev_add {"type": "hubport", "id": "h0", "hubid": 0}
netdev_add {"type": "hubport", "id": "h1", "hubid": 1}
netdev_add {"type": "hubport", "id": "h2", "hubid": 1, "netdev": "n0"}
netdev_add {"type": "hubport", "id": "h3", "hubid": 1, "netdev": "absent"}
netdev_add {"type": "user", "id": "u", "net": "rubbish"}
netdev_add {"type": "user", "id": "u", "net": "10.0.0.0/x"}
netdev_add {"type": "user", "id": "u", "net": "10.0.0.0/2"}
netdev_add {"type": "user", "id": "u", "ip": "192.168.8.0/24"}
netdev_add {"type": "user", "id": "u", "host": "x"}
netdev_add {"type": "user", "id": "u", "host": "1.2.3.4"}
netdev_add {"type": "user", "id": "u", "dns": "x"}
netdev_add {"type": "user", "id": "u", "dns": "1.2.3.4", "restrict": true}
netdev_add {"type": "user", "id": "u", "dns": "10.0.2.2"}
netdev_add {"type": "user", "id": "u", "dhcpstart": "x"}
netdev_add {"type": "user", "id": "u", "dhcpstart": "1.2.3.4"}
netdev_add {"type": "user", "id": "u", "dhcpstart": "10.0.2.2"}
netdev_add {"type": "user", "id": "u", "ipv4": false, "ipv6": false}
netdev_add {"type": "user", "id": "u", "ipv6-prefix": "x"}
netdev_add {"type": "user", "id": "u", "ipv6-prefixlen": 127}
netdev_add {"type": "user", "id": "u", "ipv6-host": "x"}
netdev_add {"type": "user", "id": "u", "ipv6-host": "fec1::1"}
netdev_add {"type": "user", "id": "u", "ipv6-dns": "x"}
netdev_add {"type": "user", "id": "u", "ipv6-dns": "fec1::1", "restrict": true}
netdev_add {"type": "user", "id": "u", "domainname": ""}
netdev_add {"type": "user", "id": "n1", "net": "192.168.7.9/24", "restrict": true}
netdev_add {"type": "user", "id": "n2", "net": "172.17.3.4"}
netdev_add {"type": "user", "id": "u", "ip": "192.168.8.0", "ipv6": true}
netdev_add {"type": "user", "id": "u", "ipv6-host": "fec0::1", "ipv4": true}
netdev_add {"type": "user", "id": "n3", "ip": "192.168.8.0"}
hmp info network
netdev_del {"id": "n0"}
netdev_del {"id": "n0"}
netdev_del {"id": "h1"}
hmp info network
""".strip().splitlines()


def test_networks_that_lead_nowhere_are_made_and_removed_alike(folder):
    alike(folder, [], NETWORKS, NONE)


BACK = '{"path": "/machine/peripheral/%s/virtio-backend"%s}'
QUEUES = [
    "x-query-virtio",
    'x-query-virtio-status {"path": "/machine/peripheral/v"}',
    *(f"x-query-virtio-status {BACK % (name, '')}" for name in "vswot"),
    *(
        f"x-query-virtio-{what} {BACK % pair}"
        for what in ("queue-status", "queue-element", "vhost-queue-status")
        for pair in (
            ("v", ', "queue": 0'),
            ("v", ', "queue": 2'),
            ("s", ', "queue": 3'),
            ("o", ', "queue": 65535'),
        )
    ),
]


def test_virtio_devices_that_nobody_drives_are_described_alike(folder):
    more = []
    for name in "nmklr":
        read_only = "on" if name == "r" else "off"
        more += ["-blockdev", f"null-co,node-name={name},read-only={read_only}"]
    more += ["-device", "virtio-blk-pci,drive=n,id=v,num-queues=2,queue-size=128"]
    more += ["-device", "virtio-scsi-pci,id=s,num_queues=2,hotplug=off"]
    modern = "discard=off,packed=on,iommu_platform=on,write-zeroes=off,event_idx=off"
    more += ["-device", f"virtio-blk-pci-non-transitional,drive=m,id=w,{modern}"]
    old = "disable-modern=on,config-wce=off,write-cache=off,x-disable-legacy-check=on"
    more += ["-device", f"virtio-blk-pci,drive=k,id=o,{old}"]
    more += ["-device", "virtio-blk-pci,drive=r,id=t"]
    alike(folder, more, QUEUES, PC)


def test_a_file_has_what_the_machine_did(folder):
    lines = ['xen-save-devices-state {"filename": "f"}', "query-status"]
    found = {}
    for program in (REAL, OURS):
        said, _ = conversation(program, [], folder, lines, NONE)
        state = bytearray((folder / "f").read_bytes())
        state[27:51] = bytes(24)  # its clocks
        found[program[0]] = [line for line in said if "RESUME" not in line], bytes(state)
    real, ours = found.values()
    assert ours == real


def test_a_machine_that_stands_still_lets_its_images_go_with_its_state(folder):
    lines = [
        'blockdev-add {"driver": "null-co", "node-name": "n"}',
        "stop",
        'xen-save-devices-state {"filename": "f", "live": false}',
        'block_resize {"node-name": "n", "size": 512}',
        'xen-save-devices-state {"filename": "f"}',
        'blockdev-snapshot-sync {"node-name": "n", "snapshot-file": "g"}',
        "cont",
        'xen-load-devices-state {"filename": "f"}',
    ]
    alike(folder, [], lines, NONE)


def test_memory_that_is_not_there_reads_as_zeroes(folder):
    for program in (REAL, OURS):
        lines = ['pmemsave {"val": 4096, "size": 3000, "filename": "m"}']
        conversation(program, [], folder, lines, NONE)
        assert (folder / "m").read_bytes() == bytes(3000)
        (folder / "m").unlink()


KEYS = """
object-add {"qom-type": "secret_keyring", "id": "k"}
object-add {"qom-type": "secret_keyring", "id": "k", "serial": 0}
object-add {"qom-type": "secret_keyring", "id": "k", "serial": 5000000000}
object-add {"qom-type": "secret_keyring", "id": "k", "serial": 1}
object-add {"qom-type": "secret_keyring", "id": "k", "serial": -100, "keyid": "x"}
object-add {"qom-type": "secret_keyring", "id": "k", "serial": -3}
object-add {"qom-type": "secret_keyring", "id": "k", "serial": -3, "keyid": "x"}
qom-list-properties {"typename": "secret_keyring"}
""".strip().splitlines()


def test_keys_of_the_kernel_are_looked_for(folder):
    alike(folder, [], KEYS, NONE)


# Of memory and firmware there is none here, nor links to where they would be.
UNLIKE = re.compile("link<|memory|firmware|max-ram-below-4g|rtc-time")


@pytest.mark.parametrize("kind", ["pc", "q35", "isapc", "none", "pc-i440fx-6.2"])
def test_a_machine_is_of_its_type_with_its_properties(folder, kind):
    base = ["-machine", kind, *PC[2:]]

    def asked(program, lines):
        said, _ = conversation(program, [], folder, lines, base)
        return [json.loads(line)["return"] for line in said if line.startswith('{"return": ')]

    def properties(program):
        found = [row for rows in asked(program, ['qom-list {"path": "/machine"}']) for row in rows]
        return {
            each["name"] for each in found if not UNLIKE.search(each["name"] + " " + each["type"])
        }

    names = properties(REAL)
    assert properties(OURS) == names
    lines = [f'qom-get {{"path": "/machine", "property": "{name}"}}' for name in sorted(names)]
    assert asked(OURS, lines) == asked(REAL, lines)


def test_the_clock_of_a_machine_is_the_hosts(folder):
    line = 'qom-get {"path": "/machine", "property": "rtc-time"}'
    for program in (REAL, OURS):
        said, _ = conversation(program, [], folder, [line], PC)
        (answer,) = (json.loads(each)["return"] for each in said if "tm_year" in each)
        assert answer.keys() == {f"tm_{x}" for x in ("year", "mon", "mday", "hour", "min", "sec")}
        assert answer["tm_year"] > 120
