"""An image against a bytearray: random requests and snapshots, opened again, refcounts recounted."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from blockemu import snapshots
from blockemu.backend import Backend
from blockemu.check import Fix
from blockemu.emulator import Emulator
from blockemu.images.qcow2 import new_image
from blockemu.images.qcow2.snapshots import Snapshot
from blockemu.node import Write
from blockemu.perm import Perm

SIZE = 1 << 18
IMAGES: list[dict[str, Any]] = [
    {"cluster_bits": 12},
    {"cluster_bits": 9, "refcount_order": 6},
    {"cluster_bits": 9, "refcount_order": 0},
    {"cluster_bits": 14, "extended_l2": True},
    {"cluster_bits": 12, "version": 2},
    {"cluster_bits": 16},
]
ranges = st.tuples(st.integers(0, SIZE - 1), st.integers(1, 70000))


def difference(seen: bytearray, wanted: bytearray) -> int | None:
    """Return the first byte that differs; a failing comparison of the whole would take minutes."""
    if seen == wanted:
        return None
    return next(at for at, (a, b) in enumerate(zip(seen, wanted, strict=True)) if a != b)


class Machine(RuleBasedStateMachine):
    """The image, and what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.emulator = Emulator()

    @initialize(kind=st.sampled_from(IMAGES), backed=st.booleans(), plans=st.booleans())
    def make(self, kind: dict[str, Any], backed: bool, plans: bool) -> None:
        folder = Path(self.folder.name)
        self.path, self.plans = folder / "image", plans
        self.model = bytearray(SIZE)
        self.kept: dict[str, bytes] = {}  # what snapshots hold, by id
        self.one_user = kind.get("refcount_order") == 0  # clusters cannot be shared
        self.old = kind.get("version") == 2
        self.cluster = 1 << kind["cluster_bits"]
        if backed:
            base = folder / "base"
            base.write_bytes(b"\7" * (SIZE // 2 + 512))
            self.model[: SIZE // 2 + 512] = base.read_bytes()
            kind = kind | {"backing_file": str(base), "backing_format": "raw"}
        self.path.write_bytes(new_image(SIZE, **kind))
        self.do(self.open())

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    async def open(self) -> None:
        file = {"driver": "file", "filename": str(self.path), "discard": "unmap"}
        options = {"driver": "qcow2", "discard": "unmap", "read-only": False, "file": file}
        self.node = await self.emulator.opener.open(options)
        self.backend = Backend("guest", Perm.ALL, Perm.ALL, plans=self.plans)
        self.emulator.graph.insert(self.backend, self.node)

    @rule(at=ranges, value=st.integers(1, 255))
    def write(self, at: tuple[int, int], value: int) -> None:
        offset, length = at[0], min(at[1], len(self.model) - at[0])
        if length > 0:
            self.do(self.backend.pwrite(offset, bytes([value]) * length))
            self.model[offset : offset + length] = bytes([value]) * length

    @rule(at=ranges, flags=st.sampled_from([0, Write.MAY_UNMAP]))
    def zero(self, at: tuple[int, int], flags: int) -> None:
        offset, length = at[0], min(at[1], len(self.model) - at[0])
        if length > 0:
            self.do(self.backend.write_zeroes(offset, length, flags))
            self.model[offset : offset + length] = bytes(length)

    @rule(at=ranges)
    def discard(self, at: tuple[int, int]) -> None:
        offset, length = at[0], min(at[1], len(self.model) - at[0])
        if length > 0:
            self.do(self.backend.discard(offset, length))
            seen = bytearray(length)
            self.do(self.backend.pread(offset, seen))
            old = self.model[offset : offset + length]
            assert all(s in (0, o) for s, o in zip(seen, old, strict=True))
            self.model[offset : offset + length] = seen

    @rule()
    def flush(self) -> None:
        self.do(self.backend.flush())

    @rule(sectors=st.integers(1, 2 * SIZE // 512), prealloc=st.sampled_from(["off", "metadata"]))
    def resize(self, sectors: int, prealloc: str) -> None:
        length = sectors * 512
        if length < len(self.model):
            prealloc = "off"
        if self.node.backing is not None and length > len(self.model):
            return  # what is new may show the backing file
        if self.kept and self.old:
            return  # version 2 knows no sizes of snapshots
        old = len(self.model)
        self.do(self.backend.truncate(length, prealloc=prealloc))
        self.model[length:] = bytes(max(0, length - old))
        rest = min(-old % self.cluster, length - old)
        if rest > 0:  # of the last cluster: what an earlier shrink left there, in QEMU as well
            seen = bytearray(rest)
            self.do(self.backend.pread(old, seen))
            self.model[old : old + rest] = seen

    @rule()
    def take_snapshot(self) -> None:
        if self.one_user or len(self.kept) > 3:
            return
        new = Snapshot("", "s", 0, 0, 0, 0, 0, 0, 0, None)
        made = self.do(snapshots.create(self.node, new))
        self.kept[made.id] = bytes(self.model)

    @precondition(lambda self: getattr(self, "kept", None))
    @rule(which=st.integers(0, 3))
    def apply_snapshot(self, which: int) -> None:
        ident = sorted(self.kept)[which % len(self.kept)]
        self.do(snapshots.goto(self.node, ident))
        self.model = bytearray(self.kept[ident])

    @precondition(lambda self: getattr(self, "kept", None))
    @rule(which=st.integers(0, 3))
    def delete_snapshot(self, which: int) -> None:
        ident = sorted(self.kept)[which % len(self.kept)]
        self.do(snapshots.delete(self.node, ident, None))
        del self.kept[ident]

    @rule()
    def reopen(self) -> None:
        self.do(self.emulator.graph.remove(self.backend))
        self.do(self.open())
        self.do(self.recount())
        assert {s.id for s in snapshots.listed(self.node)} == set(self.kept)

    async def recount(self) -> None:
        """Nothing leaks, nothing is counted too low."""
        result = await self.node.check(Fix.NOTHING)
        assert (result.corruptions, result.leaks, result.check_errors) == (0, 0, 0)

    @invariant()
    def same(self) -> None:
        if hasattr(self, "node"):
            seen = bytearray(len(self.model))
            self.do(self.backend.pread(0, seen))
            assert difference(seen, self.model) is None

    def teardown(self) -> None:
        if hasattr(self, "node"):
            self.reopen()
            self.do(self.emulator.graph.remove(self.backend))
        self.do(self.emulator.close())
        self.loop.close()
        self.folder.cleanup()


TestImageAgainstBytes = Machine.TestCase
TestImageAgainstBytes.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
