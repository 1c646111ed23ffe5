"""Dirty bitmaps: how they are named and described (qapi/block-core.json)."""

from typing import Annotated

from blockemu.qmp_server.qapi import (
    U32,
    Alternate,
    Deprecated,
    QEnum,
    Removed,
    Since,
    Struct,
)


class BlockDirtyBitmap(Struct):
    """A bitmap's place.

    @node: node or device that has it
    @name: its name
    """

    node: str
    name: str


class BlockDirtyBitmapSha256(Struct):
    """A checksum.

    @sha256: over the bitmap's words
    """

    sha256: str


class DirtyBitmapStatus(QEnum):
    """What a bitmap is up to; replaced by ``recording`` and ``busy``."""

    ACTIVE = "active"
    DISABLED = "disabled"
    FROZEN = "frozen"
    LOCKED = "locked"
    INCONSISTENT = "inconsistent"


class BlockDirtyInfo(Struct):
    """A bitmap, as queries tell.

    @name: its name
    @count: bytes that are dirty
    @granularity: bytes that a bit stands for
    @recording: whether it records writes
    @busy: whether something uses it, so that it may not be changed
    @status: the same in one word
    @persistent: whether it is, or will be, stored in the image
    @inconsistent: whether it was not stored when it should have been
    """

    name: str | None = None
    count: int
    granularity: U32
    recording: Annotated[bool, Since("4.0")]
    busy: Annotated[bool, Since("4.0")]
    status: Annotated[DirtyBitmapStatus, Since("2.4"), Deprecated("4.0"), Removed("6.0")]
    persistent: Annotated[bool, Since("4.0")]
    inconsistent: Annotated[bool | None, Since("4.0")] = None


class BlockDirtyBitmapAdd(Struct):
    """A bitmap to be made.

    @node: node or device whose writes it records
    @name: its name
    @granularity: bytes that a bit stands for, by default the cluster size, but from 4 to 64 KiB
    @persistent: keep it in the image
    @autoload: ignored: persistent bitmaps always are
    @disabled: let it record nothing yet
    """

    node: str
    name: str
    granularity: U32 | None = None
    persistent: Annotated[bool | None, Since("2.10")] = None
    autoload: Annotated[bool | None, Since("2.10"), Deprecated("2.12"), Removed("4.2")] = None
    disabled: Annotated[bool | None, Since("4.0")] = None


BlockDirtyBitmapOrStr = Annotated[
    str | BlockDirtyBitmap, Alternate("BlockDirtyBitmapOrStr", (str, BlockDirtyBitmap))
]


BlockDirtyBitmapToExport = Annotated[
    str | BlockDirtyBitmap,
    Alternate("BlockDirtyBitmapOrStr", (str, Annotated[BlockDirtyBitmap, Since("7.1")])),
]


class BlockDirtyBitmapMerge(Struct):
    """Bitmaps to be merged into another.

    @node: node or device that has the target
    @target: bitmap that is changed
    @bitmaps: bitmaps of the same node, by name, or of any node
    """

    node: str
    target: str
    bitmaps: list[BlockDirtyBitmapOrStr]
