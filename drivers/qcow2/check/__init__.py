"""Checking an image, and repairing it (qemu-img check; after block/qcow2-refcount.c).

::

    references --- counts all references anew
        |
     on_disk ----- compares them with the refcounts in the file
        |
     rebuild ----- makes new refcount blocks, if the old ones cannot be used
        |
      copied ----- compares copied flags with refcounts
"""

import errno

import numpy as np

from blockemu.check import CheckResult, Fix
from blockemu.drivers.qcow2.check.copied import CopiedFlags
from blockemu.drivers.qcow2.check.on_disk import OnDisk, compare
from blockemu.drivers.qcow2.check.rebuild import Rebuilder, RebuildError
from blockemu.drivers.qcow2.check.references import References
from blockemu.drivers.qcow2.check.storage import Storage, Structure
from blockemu.images.qcow2.constants import COPIED, OFFSET
from blockemu.os_errors import os_error

_OFFSET, _COPIED = np.uint64(OFFSET), np.uint64(COPIED)


async def check_refcounts(storage: Storage, structure: Structure, fix: int) -> CheckResult:
    """Check refcounts and copied flags, and repair what ``fix`` (see ``Fix``) tells to.

    Raises:
        OSError: the check could not be carried on.
        RebuildError: likewise, with more to tell.

    """
    if structure.geometry.clusters(storage.length) > (1 << 31) - 1:
        raise os_error(errno.EFBIG)
    check = _Check(storage, structure, fix)
    try:
        await check.run()
    except MemoryError:
        raise os_error(errno.ENOMEM) from None
    return check.result


class _Check:
    """One check, step by step."""

    def __init__(self, storage: Storage, structure: Structure, fix: int) -> None:
        self.storage = storage
        self.structure = structure
        self.fix = fix
        self.result = CheckResult()
        self.result.total_clusters = structure.geometry.clusters(structure.length)
        self.disk = OnDisk(storage, structure)
        self.references = References(storage, structure, self.result, fix)

    async def run(self) -> None:
        """Check, and repair what may be."""
        references, disk, result = self.references, self.disk, self.result
        await references.count()
        await disk.load(references.counts)
        found = CheckResult()
        highest, rebuild = await compare(disk, references, found, Fix.NOTHING)
        rebuild |= references.rebuild
        if rebuild and self.fix & Fix.ERRORS:
            result.add(found)
            highest = await self._rebuild()
        elif rebuild and self.fix:
            self.storage.say("ERROR need to rebuild refcount structures")
            raise os_error(errno.EIO)
        elif self.fix and (found.leaks + result.leaks or found.corruptions + result.corruptions):
            found = CheckResult()
            highest, _ = await compare(disk, references, found, self.fix)
            result.add(found)
        else:
            result.add(found)
        if not self._surely_right():
            await CopiedFlags(self.storage, self.structure, disk, result, self.fix).check()
        result.image_end_offset = highest + 1 << self.structure.geometry.cluster_bits

    async def _rebuild(self) -> int:
        """Make a new refcount structure; return the last cluster in use."""
        result, old = self.result, self.references
        corruptions, leaks = result.corruptions, result.leaks
        self.storage.say("Rebuilding refcount structure")
        try:
            await Rebuilder(self.storage, self.structure, old).rebuild()
        except RebuildError as e:
            self.storage.report(str(e))
            raise
        result.corruptions = result.leaks = 0
        result.allocated_clusters = result.fragmented_clusters = result.compressed_clusters = 0
        self.references = References(self.storage, self.structure, result, Fix.NOTHING)
        self.references.reach(old.clusters)
        await self.references.count()
        await self.disk.load(self.references.counts)
        fresh = CheckResult()
        highest, broken = await compare(self.disk, self.references, fresh, Fix.LEAKS)
        if broken or self.references.rebuild:
            self.storage.say("ERROR rebuilt refcount structure is still broken")
        result.corruptions_fixed += max(0, corruptions - result.corruptions)
        result.leaks_fixed += max(0, leaks - result.leaks)
        result.leaks += fresh.leaks
        return highest

    def _surely_right(self) -> bool:
        """Tell whether no copied flag can be wrong, so that none need be looked at."""
        result = self.result
        found = result.corruptions, result.leaks, result.check_errors, result.corruptions_fixed
        if any(found) or result.leaks_fixed or not self.references.all_copied:
            return False
        l1 = self.structure.l1
        alone = self.structure.geometry.data_file or self.references.counts.max(initial=0) <= 1
        return bool(alone and (l1[l1 & _OFFSET != 0] & _COPIED != 0).all())
