"""Extents: values only."""

import numpy as np

from blockemu.extents import ALLOCATED, DATA, NOWHERE, ZERO, Extents, refine

HELD = DATA | ALLOCATED


def extents(*rows, end):
    """Return extents of (start, status, host)."""
    start, status, host = zip(*rows, strict=True)
    return Extents(np.array(start), np.array(status, np.uint8), np.array(host), end)


def test_only_data_is_zero_where_the_file_has_a_hole():
    top = extents(
        (0, HELD, 1000),
        (100, 0, 1100),  # has a place, but the backing file shows through
        (200, ZERO | ALLOCATED, 1200),
        (300, HELD, NOWHERE),
        (400, HELD, 1300),
        end=500,
    )
    file = extents((1000, ZERO, NOWHERE), (1350, DATA, NOWHERE), end=1400)
    found = refine(top, file)
    assert found.start.tolist() == [0, 100, 200, 300, 400, 450]
    assert found.status.tolist() == [
        ZERO | ALLOCATED, 0, ZERO | ALLOCATED, HELD, ZERO | ALLOCATED, HELD,
    ]  # fmt: skip
    assert found.host.tolist() == [1000, 1100, 1200, NOWHERE, 1300, 1350]
