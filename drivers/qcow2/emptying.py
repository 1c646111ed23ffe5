"""Emptying an image, so that its backing file shows through everywhere (qcow2_make_empty)."""

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from blockemu.drivers.qcow2.freed import Discard
from blockemu.drivers.qcow2.image import Image
from blockemu.images.qcow2.constants import CRYPT_LUKS
from blockemu.images.qcow2.header import L1_OFFSET_AT

if TYPE_CHECKING:
    from blockemu.drivers.qcow2.writeback import Writeback
    from blockemu.drivers.qcow2.zeroer import Zeroer

L1_AT: Final = 3  # the cluster where it begins, behind header, refcount table and refcount block


class Emptier:
    """Empties one image; nothing else is in flight."""

    def __init__(self, image: Image, writeback: "Writeback", zeroer: "Zeroer") -> None:
        self.image = image
        self.writeback = writeback
        self.zeroer = zeroer

    async def run(self) -> None:
        """Let go of all that the disk holds.

        Raises:
            OSError: the image cannot be written; it may be of no use any more then.

        """
        await self.writeback.settle_all()
        if self._only_the_disk() and not self.image.freed.count:
            await self._begin_anew()
        else:
            await self.zeroer.drop(0, self.image.length, Discard.SNAPSHOT, full=True)
            await self.writeback.settle_all()  # what is free is free: the file shall not grow

    @property
    def _clusters(self) -> int:
        """How many clusters an empty image has."""
        return L1_AT + self.image.geometry.clusters(len(self.image.mapping.l1) * 8)

    def _only_the_disk(self) -> bool:
        """Tell whether nothing in the file is to stay but the header, as if just made."""
        image, geometry = self.image, self.image.geometry
        other = image.snapshots or image.bitmaps or geometry.data_file
        luks = image.header.crypt_method == CRYPT_LUKS
        small = self._clusters <= geometry.counts_per_block
        return geometry.version >= 3 and small and not (other or luks)

    async def _begin_anew(self) -> None:
        """Write the tables of an empty image where a new one has them, and cut the file.

        While what is on disk makes no sense the image is marked dirty: opening it would repair it.
        """
        image, used = self.image, self._clusters
        await image.mark_dirty()
        await image.tell("l1_update")
        try:
            await self._write_tables()
        except BaseException:
            image.broken = True  # what is in memory may be of no use
            image.node.changed()
            raise
        size = image.geometry.cluster_size
        image.mapping.replace(np.zeros_like(image.mapping.l1), L1_AT * size)
        image.refcounts.begin_anew(used, image.geometry.clusters(image.file.fresh_length()))
        image.node.changed()
        await self.writeback.close()  # marks it clean
        await image.file.truncate(used * size, exact=False)
        image.refcounts.fresh = image.geometry.clusters(image.file.fresh_length())

    async def _write_tables(self) -> None:
        image, size = self.image, self.image.geometry.cluster_size
        l1_clusters = self._clusters - L1_AT
        await image.file.write_zeroes(image.mapping.l1_offset, l1_clusters * size)
        await image.tell("empty_image_prepare")
        await image.file.write_zeroes(size, (2 + l1_clusters) * size)
        await image.tell("l1_update")
        await image.tell("reftable_update")
        places = struct.pack(">QQI", L1_AT * size, size, 1)
        await image.file.pwrite(L1_OFFSET_AT, places)
        await image.file.flush()
        await image.tell("refblock_alloc")
        await image.file.pwrite(size, struct.pack(">Q", 2 * size))
        await image.file.flush()
