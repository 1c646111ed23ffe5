"""Events of qcow2."""

from blockemu.qmp_server.dispatch import Event


class BlockImageCorrupted(Event, event="BLOCK_IMAGE_CORRUPTED"):
    """An image was found to be corrupt.

    @device: the device that uses it, empty if none does by name
    @node-name: the node's name
    @msg: what is wrong
    @offset: where in the image file, if that is known
    @size: how many bytes there, if that is known
    @fatal: whether the image cannot be used any more
    """

    device: str
    node_name: str | None = None
    msg: str
    offset: int | None = None
    size: int | None = None
    fatal: bool
