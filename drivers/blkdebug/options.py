"""Options of blkdebug, as QAPI has them."""

from typing import Annotated

from blockemu.blockdev_options import BlockdevRef, NodeOptions
from blockemu.perm import Role
from blockemu.qmp_server.qapi import I32, QEnum, Since, Struct, Wire
from blockemu.schema.nodes import BlockPermission


class BlkdebugEvent(QEnum):
    """Points in the life of requests."""

    L1_UPDATE = "l1_update"
    L1_GROW_ALLOC_TABLE = "l1_grow_alloc_table"
    L1_GROW_WRITE_TABLE = "l1_grow_write_table"
    L1_GROW_ACTIVATE_TABLE = "l1_grow_activate_table"
    L2_LOAD = "l2_load"
    L2_UPDATE = "l2_update"
    L2_UPDATE_COMPRESSED = "l2_update_compressed"
    L2_ALLOC_COW_READ = "l2_alloc_cow_read"
    L2_ALLOC_WRITE = "l2_alloc_write"
    READ_AIO = "read_aio"
    READ_BACKING_AIO = "read_backing_aio"
    READ_COMPRESSED = "read_compressed"
    WRITE_AIO = "write_aio"
    WRITE_COMPRESSED = "write_compressed"
    VMSTATE_LOAD = "vmstate_load"
    VMSTATE_SAVE = "vmstate_save"
    COW_READ = "cow_read"
    COW_WRITE = "cow_write"
    REFTABLE_LOAD = "reftable_load"
    REFTABLE_GROW = "reftable_grow"
    REFTABLE_UPDATE = "reftable_update"
    REFBLOCK_LOAD = "refblock_load"
    REFBLOCK_UPDATE = "refblock_update"
    REFBLOCK_UPDATE_PART = "refblock_update_part"
    REFBLOCK_ALLOC = "refblock_alloc"
    REFBLOCK_ALLOC_HOOKUP = "refblock_alloc_hookup"
    REFBLOCK_ALLOC_WRITE = "refblock_alloc_write"
    REFBLOCK_ALLOC_WRITE_BLOCKS = "refblock_alloc_write_blocks"
    REFBLOCK_ALLOC_WRITE_TABLE = "refblock_alloc_write_table"
    REFBLOCK_ALLOC_SWITCH_TABLE = "refblock_alloc_switch_table"
    CLUSTER_ALLOC = "cluster_alloc"
    CLUSTER_ALLOC_BYTES = "cluster_alloc_bytes"
    CLUSTER_FREE = "cluster_free"
    FLUSH_TO_OS = "flush_to_os"
    FLUSH_TO_DISK = "flush_to_disk"
    PWRITEV_RMW_HEAD = "pwritev_rmw_head"
    PWRITEV_RMW_AFTER_HEAD = "pwritev_rmw_after_head"
    PWRITEV_RMW_TAIL = "pwritev_rmw_tail"
    PWRITEV_RMW_AFTER_TAIL = "pwritev_rmw_after_tail"
    PWRITEV = "pwritev"
    PWRITEV_ZERO = "pwritev_zero"
    PWRITEV_DONE = "pwritev_done"
    EMPTY_IMAGE_PREPARE = "empty_image_prepare"
    L1_SHRINK_WRITE_TABLE = "l1_shrink_write_table"
    L1_SHRINK_FREE_L2_CLUSTERS = "l1_shrink_free_l2_clusters"
    COR_WRITE = "cor_write"
    CLUSTER_ALLOC_SPACE = "cluster_alloc_space"
    NONE = "none"


class BlkdebugIOType(QEnum):
    """Kinds of requests."""

    READ = "read"
    WRITE = "write"
    WRITE_ZEROES = "write-zeroes"
    DISCARD = "discard"
    FLUSH = "flush"
    BLOCK_STATUS = "block-status"


class BlkdebugInjectErrorOptions(Struct):
    """A rule that makes requests fail.

    @event: what sets the error
    @state: only in this state; 0, the default, for any
    @iotype: kind of requests that fail; all but block-status by default
    @errno: the error, EIO by default
    @sector: only requests that touch this sector fail; -1, the default, for any
    @once: forget the rule when one request has failed
    @immediately: fail at once, not in the next turn of the event loop
    """

    event: BlkdebugEvent
    state: int | None = None
    iotype: Annotated[BlkdebugIOType | None, Since("4.1")] = None
    errno: int | None = None
    sector: int | None = None
    once: bool | None = None
    immediately: bool | None = None


class BlkdebugSetStateOptions(Struct):
    """A rule that changes the state.

    @event: what changes it
    @state: only in this state; 0, the default, for any
    @new_state: the state from then on
    """

    event: BlkdebugEvent
    state: int | None = None
    new_state: Annotated[int, Wire("new_state")]


class BlockdevOptionsBlkdebug(NodeOptions, tag="blkdebug", since="2.9"):
    """Options of blkdebug.

    @image: the node below
    @config: file with rules
    @align: required alignment of requests in bytes, a power of 2; 0 for none
    @max-transfer: longest read or write in bytes; 0 for no limit
    @opt-write-zero: preferred alignment of zero writes in bytes; 0 for none
    @max-write-zero: longest zero write in bytes; 0 for no limit
    @opt-discard: preferred alignment of discards in bytes; 0 for none
    @max-discard: longest discard in bytes; 0 for no limit
    @inject-error: rules that make requests fail
    @set-state: rules that change the state
    @take-child-perms: permissions to take on the node below besides what is needed
    @unshare-child-perms: permissions not to share on the node below besides what must be
    """

    image: Annotated[BlockdevRef, Role.FILTERED | Role.PRIMARY]
    config: str | None = None
    align: int | None = None
    max_transfer: Annotated[I32 | None, Since("2.10")] = None
    opt_write_zero: Annotated[I32 | None, Since("2.10")] = None
    max_write_zero: Annotated[I32 | None, Since("2.10")] = None
    opt_discard: Annotated[I32 | None, Since("2.10")] = None
    max_discard: Annotated[I32 | None, Since("2.10")] = None
    inject_error: list[BlkdebugInjectErrorOptions] | None = None
    set_state: list[BlkdebugSetStateOptions] | None = None
    take_child_perms: Annotated[list[BlockPermission] | None, Since("5.0")] = None
    unshare_child_perms: Annotated[list[BlockPermission] | None, Since("5.0")] = None
