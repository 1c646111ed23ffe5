"""Mirror, commit and stream jobs (qapi/block-core.json)."""

from typing import Annotated

from blockemu.qmp_server.qapi import U32, QEnum, Since, Struct
from blockemu.schema.backup import MirrorSyncMode, NewImageMode
from blockemu.schema.jobs import BlockdevOnError


class MirrorCopyMode(QEnum):
    """How what is written while a mirror runs gets to the target.

    @background: it is marked and copied later
    @write-blocking: before the write is done
    """

    BACKGROUND = "background"
    WRITE_BLOCKING = "write-blocking"


class DriveMirror(Struct):
    """A mirror to a file.

    @job-id: name of the job; the device's name if omitted
    @device: node or device to mirror
    @target: name of the new image
    @format: its format; that of the source by default, or what is found in an existing image
    @node-name: node name of the new image
    @replaces: node that the new image takes the place of in the end
    @sync: which parts to copy
    @mode: whether the new image is there already
    @speed: bytes a second, 0 for no limit
    @granularity: bytes that are copied together
    @buf-size: bytes under way at the most
    @on-source-error: what to do when reading fails
    @on-target-error: what to do when writing fails
    @unmap: whether zeroes may be made by dropping what is there
    @copy-mode: when writes get to the target
    @auto-finalize: conclude without being told
    @auto-dismiss: go away without being told
    """

    job_id: str | None = None
    device: str
    target: str
    format: str | None = None
    node_name: str | None = None
    replaces: str | None = None
    sync: MirrorSyncMode
    mode: NewImageMode | None = None
    speed: int | None = None
    granularity: U32 | None = None
    buf_size: int | None = None
    on_source_error: BlockdevOnError | None = None
    on_target_error: BlockdevOnError | None = None
    unmap: bool | None = None
    copy_mode: Annotated[MirrorCopyMode | None, Since("3.0")] = None
    auto_finalize: Annotated[bool | None, Since("3.1")] = None
    auto_dismiss: Annotated[bool | None, Since("3.1")] = None
