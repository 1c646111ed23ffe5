"""The options that every node has, in QAPI's terms; drivers' own options build on them."""

from typing import Annotated

from blockemu.qmp_server.qapi import Alternate, QEnum, Since, Struct, Union

BLOCKDEV = Union("BlockdevOptions", "driver")


class BlockdevDiscardOptions(QEnum):
    """What happens to discard requests."""

    IGNORE = "ignore"
    UNMAP = "unmap"


class BlockdevDetectZeroesOptions(QEnum):
    """Whether writes of zeroes become zero writes."""

    OFF = "off"
    ON = "on"
    UNMAP = "unmap"


class BlockdevCacheOptions(Struct):
    """Cache options of a node.

    @direct: bypass the host's page cache
    @no-flush: ignore flush requests
    """

    direct: bool | None = None
    no_flush: bool | None = None


class NodeOptions(Struct):
    """Options every node has.

    @node-name: the name of the new node
    @discard: whether discard requests are passed on
    @cache: cache options
    @read-only: open read-only
    @auto-read-only: fall back to read-only where the storage is so
    @force-share: share all permissions with other programs
    @detect-zeroes: look for zeroes in what is written
    """

    union = BLOCKDEV
    node_name: str | None = None
    discard: BlockdevDiscardOptions | None = None
    cache: BlockdevCacheOptions | None = None
    read_only: bool | None = None
    auto_read_only: Annotated[bool | None, Since("3.1")] = None
    force_share: bool | None = None
    detect_zeroes: BlockdevDetectZeroesOptions | None = None


BlockdevOptions = Annotated[NodeOptions, BLOCKDEV]
BlockdevRef = Annotated[str | NodeOptions, Alternate("BlockdevRef", (BLOCKDEV, str))]
BlockdevRefOrNull = Annotated[
    str | NodeOptions | None, Alternate("BlockdevRefOrNull", (BLOCKDEV, str, None))
]
