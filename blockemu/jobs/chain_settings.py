"""What commits and streams have in common: settings, and how far they go at a time."""

from typing import Final

from blockemu.records import record
from blockemu.schema.jobs import BlockdevOnError

STEP: Final = 512 << 10  # bytes copied in one go where a user can see it in the job's offset
AHEAD: Final = 1 << 30  # bytes that are skipped in one go


@record(frozen=True, kw_only=True)
class ChainSettings:
    """What a commit or a stream is to do; ``speed`` is in bytes a second."""

    job_id: str | None = None
    speed: int = 0
    on_error: BlockdevOnError = BlockdevOnError.REPORT
    backing_file: str | None = None
    filter_node_name: str | None = None
    auto_finalize: bool = True
    auto_dismiss: bool = True
