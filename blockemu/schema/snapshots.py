"""Internal snapshots (qapi/block-core.json)."""

from blockemu.qmp_server.qapi import Struct


class BlockdevSnapshotInternal(Struct):
    """What is to be taken an internal snapshot of.

    @device: the device, or the root node
    @name: the snapshot's name
    """

    device: str
    name: str
