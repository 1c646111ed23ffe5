"""Writes by a plan, as exports do them."""

from __future__ import annotations

from blockemu.backend import Backend


def planned_write(backend: Backend, offset: int, data: bytes | memoryview) -> bool:
    """Write by a plan; return False, with nothing done, if there is none for this range (bytes)."""
    plan = backend.route.write
    found = plan(offset, len(data)) if plan is not None else None
    if found is None:
        return False
    segments, commit = found
    marks = backend.route.marks
    at, view = 0, memoryview(data)
    for leaf, host, length in segments:
        assert leaf is not None
        leaf.recall()
        leaf.write_now(host, view[at : at + length])
        at += length
    assert at == len(data)
    if commit is not None:
        commit(True)
    for bitmap, by in marks:
        bitmap.mark(offset + by, len(data))
    return True


async def write(backend: Backend, offset: int, data: bytes) -> None:
    """Write, by a plan where there is one."""
    if not planned_write(backend, offset, data):
        await backend.pwrite(offset, data)
