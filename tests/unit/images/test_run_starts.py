"""Where runs of L2 entries begin: found by columns, against one entry after the other."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockemu.images.qcow2 import tables
from blockemu.images.qcow2.constants import COMPRESSED, COPIED, OFFSET
from blockemu.images.qcow2.tables import run_starts

SIZE = 512
FIRST = (0, 1, SIZE, 2 * SIZE, SIZE | 1, COPIED, COPIED | SIZE, COPIED | 5 * SIZE, COPIED | 1,
         COMPRESSED, COMPRESSED | SIZE)  # fmt: skip


@st.composite
def entries(draw: st.DrawFn) -> list[int]:
    """Draw entries that often follow on one another or are alike."""
    found: list[int] = []
    for _ in range(draw(st.integers(1, 14))):
        how = draw(st.sampled_from(("follow", "same", "new"))) if found else "new"
        match how:
            case "follow":
                found.append(found[-1] + SIZE)
            case "same":
                found.append(found[-1])
            case _:
                found.append(draw(st.sampled_from(FIRST)))
    return found


def begins(before: int, entry: int) -> bool:
    """Tell whether an entry does not go on with what the one before it is."""
    if (before | entry) & COMPRESSED:
        return True
    if not before & OFFSET and not before & COPIED:
        return entry != before
    return entry != before + SIZE and not (entry == before and not entry & OFFSET)


@pytest.mark.parametrize("piece", [1, 3, tables.PIECE])
@given(table=entries())
def test_runs_begin_where_an_entry_does_not_go_on(piece: int, table: list[int]) -> None:
    expected = [0] + [i for i in range(1, len(table)) if begins(table[i - 1], table[i])]
    with patch.object(tables, "PIECE", piece):
        assert run_starts(np.array(table, np.uint64), SIZE).tolist() == expected
