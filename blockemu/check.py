"""What checking an image found, and what of it may be repaired."""

from typing import Final

from blockemu.records import record


class Fix:
    """What to repair, or-ed together: plain ints, as they come and go through many calls."""

    NOTHING: Final = 0
    LEAKS: Final = 1
    ERRORS: Final = 2
    ALL: Final = 3


@record
class CheckResult:
    """What was found (BdrvCheckResult, include/block/block-common.h); numbers of clusters.

    ``corruptions`` and ``leaks`` are what is left, ``..._fixed`` what was there.  ``check_errors``
    kept the check itself from finding out more.  ``image_end_offset`` is where the last cluster in
    use ends in the file, in bytes; 0 if that is unknown, as for the numbers of a disk's clusters.
    """

    corruptions: int = 0
    leaks: int = 0
    check_errors: int = 0
    corruptions_fixed: int = 0
    leaks_fixed: int = 0
    image_end_offset: int = 0
    total_clusters: int = 0
    allocated_clusters: int = 0
    compressed_clusters: int = 0
    fragmented_clusters: int = 0

    def add(self, other: "CheckResult") -> None:
        """Add what another step of the check found, but for what it tells of the whole image."""
        self.corruptions += other.corruptions
        self.leaks += other.leaks
        self.check_errors += other.check_errors
        self.corruptions_fixed += other.corruptions_fixed
        self.leaks_fixed += other.leaks_fixed
