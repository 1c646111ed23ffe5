"""Where a write goes: what the writer hands from one step to the next."""

from dataclasses import dataclass
from typing import Final

from blockemu.drivers.qcow2.mapping import L2
from blockemu.route import Commit

NOTHING: Final = memoryview(b"")


@dataclass(slots=True)
class Room:
    """Room for the front part of a write: ``length`` bytes at ``host``, and what to add around."""

    length: int
    host: int
    head: memoryview = NOTHING
    tail: memoryview = NOTHING
    commit: Commit | None = None


@dataclass(slots=True)
class Span:
    """Guest clusters of one table about to change; the bytes are the request and copies around."""

    table: L2
    index: int  # of the table
    first: int  # cluster in the table
    count: int
    begin: int
    end: int
