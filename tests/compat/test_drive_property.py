"""Devices that are put on other nodes while they are at work: ``qom-set`` of their drive."""

from __future__ import annotations

from compat.daemon import BlockemuMachine, Both, Daemon, Machine

NODES = {"a": {}, "b": {}, "small": {"size": 1 << 20}, "ro": {"read-only": True}}


def script(daemon: Daemon) -> None:
    for name, more in NODES.items():
        daemon("blockdev-add", {"driver": "null-co", "node-name": name, "size": 2 << 20} | more)
    daemon("blockdev-add", driver="raw", node_name="above", file="b")
    daemon("device_add", driver="virtio-scsi", id="bus")
    daemon("device_add", driver="scsi-hd", id="disk", drive="a", bus="bus.0")
    daemon("device_add", driver="virtio-blk-pci", id="blk", drive="ro")
    disk, proxy = "/machine/peripheral/disk", "/machine/peripheral/blk"
    for path in (disk, proxy, f"{proxy}/virtio-backend", "/machine/peripheral/bus"):
        daemon.execute("qom-get", path=path, property="drive")
    for value in ("absent", "", "ro", "b", "small", "a", "above", "a"):
        daemon.execute("qom-set", path=disk, property="drive", value=value)
        daemon.execute("qom-get", path=disk, property="drive")
        daemon.execute("query-named-block-nodes", flat=True)
    daemon.execute("qom-set", path=disk, property="drive", value=1)
    daemon.execute("blockdev-del", node_name="a")
    daemon.execute("qom-set", path=disk, property="drive", value="small")
    daemon.execute("blockdev-del", node_name="a")
    daemon.execute("qom-set", path=proxy, property="drive", value="small")
    daemon.execute("qom-set", path=f"{proxy}/virtio-backend", property="drive", value="above")
    daemon.execute("qom-get", path=proxy, property="drive")
    daemon.execute("x-debug-query-block-graph")
    daemon.execute("query-block")


def test_a_device_is_put_on_another_node_in_the_same_words(both: Both) -> None:
    both(script, oracle=Machine, ours=BlockemuMachine)
