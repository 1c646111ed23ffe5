"""Where ``convert`` finds data and zeroes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from blockemu.programs.img.sparse import SECTOR, all_data, pieces

SECTORS = st.lists(st.sampled_from("d.l"), min_size=1, max_size=40)  # data, none, its last byte


def _disk(kinds: list[str]) -> memoryview:
    looks = {
        "d": b"\1" * SECTOR,
        ".": bytes(SECTOR),
        "l": bytes(SECTOR - 1) + b"\1",
    }
    return memoryview(b"".join(looks[kind] for kind in kinds))


@given(SECTORS, st.integers(0, 64), st.integers(0, 4), st.integers(0, 7))
def test_where_each_block_begins_with_data_it_is_one_piece(
    kinds: list[str], at: int, power: int, more: int
) -> None:
    """If it is seen at once that there is data everywhere, a closer look finds the same."""
    view, alignment = _disk(kinds), 1 << power
    if all_data(view, at, alignment):
        least = alignment + min(more, alignment - 1)
        assert list(pieces(view, least, at, alignment)) == [(0, len(kinds), True)]


def test_what_is_seen_at_once() -> None:
    assert all_data(_disk(["d", "."] * 8), 8, 8)
    assert not all_data(_disk(["d", "."] * 8), 9, 8)  # blocks are counted from elsewhere
    assert not all_data(_disk(["d", "."] * 8), 8, 1)
    assert not all_data(_disk(["l"] * 8), 8, 8)  # there is data, but not at the beginning
    assert not all_data(_disk(["d"] * 9), 8, 8)
