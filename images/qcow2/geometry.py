"""The sizes of an image's parts, as its header gives them."""

from blockemu.records import record


@record(frozen=True)
class Geometry:
    """Sizes in bytes, and numbers of entries, unless a name says bits."""

    version: int
    cluster_bits: int
    refcount_order: int
    extended: bool  # L2 entries have a bitmap of subclusters
    data_file: bool  # guest data lies in another file, each cluster at its guest offset

    @property
    def cluster_size(self) -> int:
        """Bytes in a cluster."""
        return 1 << self.cluster_bits

    @property
    def subcluster_bits(self) -> int:
        """Exponent of a subcluster's size."""
        return self.cluster_bits - (5 if self.extended else 0)

    @property
    def subcluster_size(self) -> int:
        """Bytes in a subcluster: the unit of zeroes and of what the backing file decides."""
        return 1 << self.subcluster_bits

    @property
    def entry_size(self) -> int:
        """Bytes in an L2 entry."""
        return 16 if self.extended else 8

    @property
    def l2_bits(self) -> int:
        """Exponent of the number of entries in an L2 table."""
        return self.cluster_bits - (4 if self.extended else 3)

    @property
    def l2_size(self) -> int:
        """Entries in an L2 table."""
        return 1 << self.l2_bits

    @property
    def table_bits(self) -> int:
        """Exponent of the guest bytes that one L2 table maps."""
        return self.cluster_bits + self.l2_bits

    @property
    def refcount_bits(self) -> int:
        """Bits in a refcount."""
        return 1 << self.refcount_order

    @property
    def refcount_max(self) -> int:
        """The largest refcount."""
        return (1 << self.refcount_bits) - 1

    @property
    def counts_bits(self) -> int:
        """Exponent of the number of refcounts in a block."""
        return self.cluster_bits + 3 - self.refcount_order

    @property
    def counts_per_block(self) -> int:
        """Refcounts in a block."""
        return 1 << self.counts_bits

    def clusters(self, length: int) -> int:
        """Return how many clusters hold ``length`` bytes."""
        return (length + self.cluster_size - 1) >> self.cluster_bits

    def refcount_sizes(self, others: int) -> tuple[int, int]:
        """Return the clusters of a refcount table, and its blocks, that count as many others.

        They count themselves as well (after qcow2_refcount_metadata_size).
        """
        table = blocks = 1
        while True:
            more_blocks = -(-(others + table + blocks) // self.counts_per_block)
            more_table = self.clusters(more_blocks * 8)
            if (more_table, more_blocks) == (table, blocks):
                return table, blocks
            table, blocks = more_table, more_blocks

    def l1_entries(self, length: int) -> int:
        """Return how many L1 entries map a disk of ``length`` bytes."""
        return (length + (1 << self.table_bits) - 1) >> self.table_bits

    # Compressed clusters (spec: "Compressed Clusters Descriptor")

    @property
    def compressed_shift(self) -> int:
        """Where the number of sectors begins in a compressed cluster's entry."""
        return 62 - (self.cluster_bits - 8)

    @property
    def compressed_offset(self) -> int:
        """Mask of a compressed cluster's host offset."""
        return (1 << self.compressed_shift) - 1

    @property
    def compressed_sectors(self) -> int:
        """Mask of a compressed cluster's number of sectors, once shifted."""
        return (1 << (self.cluster_bits - 8)) - 1
