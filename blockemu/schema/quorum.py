"""Events of quorum (qapi/block-core.json)."""

from typing import Annotated

from blockemu.qmp_server.dispatch import Event
from blockemu.qmp_server.qapi import QEnum, Since


class QuorumOpType(QEnum):
    """Kinds of requests to a quorum's children."""

    READ = "read"
    WRITE = "write"
    FLUSH = "flush"


class QuorumFailure(Event, event="QUORUM_FAILURE", since="2.0"):
    """Too few children agree, or work at all.

    @reference: the device on the quorum, or else the quorum's node name
    @sector-num: first sector of the request
    @sectors-count: number of sectors of the request
    """

    reference: str
    sector_num: int
    sectors_count: int


class QuorumReportBad(Event, event="QUORUM_REPORT_BAD", since="2.0"):
    """A child failed, or was outvoted.

    @type: kind of the request
    @error: what went wrong, nothing if the child was outvoted
    @node-name: the child
    @sector-num: first sector of the request
    @sectors-count: number of sectors of the request
    """

    type: Annotated[QuorumOpType, Since("2.6")]
    error: str | None = None
    node_name: str
    sector_num: int
    sectors_count: int
