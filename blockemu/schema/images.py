"""What is known of an image (qapi/block-core.json)."""

from typing import Annotated

from blockemu.qmp_server.dispatch import Event
from blockemu.qmp_server.qapi import Since, Struct, Union

SPECIFIC = Union("ImageInfoSpecific", "type")


class SpecificInfo(Struct):
    """What a format tells of an image; each format adds its case."""

    union = SPECIFIC


class SnapshotInfo(Struct):
    """An internal snapshot.

    @id: unique identifier
    @name: user-chosen name
    @vm-state-size: bytes of the machine's state
    @date-sec: when it was taken, seconds
    @date-nsec: and nanoseconds
    @vm-clock-sec: the machine's clock then, seconds
    @vm-clock-nsec: and nanoseconds
    @icount: instructions executed by then
    """

    id: str
    name: str
    vm_state_size: int
    date_sec: int
    date_nsec: int
    vm_clock_sec: int
    vm_clock_nsec: int
    icount: Annotated[int | None, Since("5.2")] = None


class ImageInfo(Struct):
    """An image.

    @filename: its name
    @format: its format
    @dirty-flag: whether it was not closed cleanly
    @actual-size: bytes on the host
    @virtual-size: bytes of the disk
    @cluster-size: bytes of a cluster
    @encrypted: whether it is encrypted
    @compressed: whether it is compressed
    @backing-filename: name of the backing file, as in the image
    @full-backing-filename: the same, made absolute or relative to here
    @backing-filename-format: format of the backing file
    @snapshots: internal snapshots
    @backing-image: the image below
    @format-specific: what only this format has
    """

    filename: str
    format: str
    dirty_flag: bool | None = None
    actual_size: int | None = None
    virtual_size: int
    cluster_size: int | None = None
    encrypted: bool | None = None
    compressed: bool | None = None
    backing_filename: str | None = None
    full_backing_filename: str | None = None
    backing_filename_format: str | None = None
    snapshots: list[SnapshotInfo] | None = None
    backing_image: "ImageInfo | None" = None
    format_specific: Annotated[SpecificInfo, SPECIFIC] | None = None


class BlockImageCorrupted(Event, event="BLOCK_IMAGE_CORRUPTED", since="1.7"):
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
