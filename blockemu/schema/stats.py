"""What drivers count besides the statistics that every node has (qapi/block-core.json)."""

from typing import Annotated

from blockemu.create_options import DRIVER_LIVES
from blockemu.qmp_server.qapi import U64, Since, Struct, Union

BLOCK_STATS_SPECIFIC = Union("BlockStatsSpecific", "driver")


class BlockStatsSpecific(Struct, union=BLOCK_STATS_SPECIFIC):
    """What one driver counts."""


class BlockStatsSpecificFile(BlockStatsSpecific, tag="file"):
    """Counts of the file driver.

    @discard-nb-ok: how many discards succeeded
    @discard-nb-failed: how many failed
    @discard-bytes-ok: bytes that were discarded
    """

    discard_nb_ok: U64
    discard_nb_failed: U64
    discard_bytes_ok: U64


class BlockStatsSpecificHostDevice(BlockStatsSpecificFile, tag="host_device"):
    """Counts of the host_device driver."""


class BlockStatsSpecificNvme(BlockStatsSpecific, tag="nvme"):
    """Counts of the nvme driver.

    @completion-errors: requests that the controller failed
    @aligned-accesses: requests whose buffers it could use
    @unaligned-accesses: requests whose buffers were copied
    """

    completion_errors: Annotated[U64, Since("5.2")]
    aligned_accesses: Annotated[U64, Since("5.2")]
    unaligned_accesses: Annotated[U64, Since("5.2")]


BLOCK_STATS_SPECIFIC.declare_empty(BlockStatsSpecific, DRIVER_LIVES)
