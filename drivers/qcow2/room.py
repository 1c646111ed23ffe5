"""Where a write goes: what the writer hands from one step to the next."""

from typing import Final

from blockemu.drivers.qcow2.mapping import L2
from blockemu.records import record
from blockemu.route import Commit

NOTHING: Final = memoryview(b"")


@record
class Room:
    """Room for the front part of a write: ``length`` bytes at ``host``, and what to add around."""

    length: int
    host: int
    head: memoryview = NOTHING
    tail: memoryview = NOTHING
    commit: Commit | None = None


@record
class Span:
    """Guest clusters of one table about to change; the bytes are the request and copies around."""

    table: L2
    index: int  # of the table
    first: int  # cluster in the table
    count: int
    begin: int
    end: int
