"""What is told of the requests of devices (qapi/block-core.json)."""

from blockemu.qmp_server.dispatch import Event
from blockemu.qmp_server.qapi import U64
from blockemu.schema.jobs import BlockErrorAction, IoOperationType


class BlockIoError(Event, event="BLOCK_IO_ERROR"):
    """A device's request failed.

    @device: name of the drive, empty if it has none
    @node-name: the node that it was made to
    @operation: which way data went
    @action: what was done about it
    @nospace: whether there was no space left, if the device has an I/O status
    @reason: the error as text, for people
    """

    device: str
    node_name: str | None = None
    operation: IoOperationType
    action: BlockErrorAction
    nospace: bool | None = None
    reason: str


class BlockWriteThreshold(Event, event="BLOCK_WRITE_THRESHOLD", since="2.3"):
    """A write went beyond the threshold, which is taken away with this.

    @node-name: the node
    @amount-exceeded: by how many bytes
    @write-threshold: the threshold in bytes
    """

    node_name: str
    amount_exceeded: U64
    write_threshold: U64
