"""Dirty bitmaps on a node: names, states, successors, and the words of refusals."""

from collections.abc import Awaitable, Callable

import pytest

from blockemu.dirty import (
    ALLOW_READONLY,
    BitmapSet,
    DirtyBitmap,
    Refuse,
    bitmaps_of,
    default_granularity,
)
from blockemu.errors import QmpError
from blockemu.route import Marks


class FakeNode:
    """As much of a node as bitmaps need; ``write`` is a guest's."""

    def __init__(self, length: int = 1 << 20) -> None:
        self.name = "node"
        self.length = length
        self.bitmaps: list[Marks] = []
        self.bitmap_set: BitmapSet | None = None
        self.on_resize: list[Callable[[int], None]] = []
        self.before_write: list[Callable[[int, int], Awaitable[None]]] = []
        self.changes = 0

    def changed(self) -> None:
        self.changes += 1

    def add_bitmap(self, bitmap: Marks) -> None:
        self.bitmaps.append(bitmap)
        self.changed()

    def remove_bitmap(self, bitmap: Marks) -> None:
        self.bitmaps.remove(bitmap)
        self.changed()

    def write(self, offset: int, length: int = 1) -> None:
        for bitmap in self.bitmaps:
            if bitmap.enabled:
                bitmap.mark(offset, length)


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def bitmap(node: FakeNode) -> DirtyBitmap:
    return bitmaps_of(node).add("b0", 65536)


def refusal(call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(QmpError) as caught:
        call(*arguments)
    return str(caught.value)


def test_a_set_is_made_once_and_lists_the_newest_first(node: FakeNode) -> None:
    bitmaps = bitmaps_of(node)
    for name in ("a", "b", None, "c"):
        bitmaps.add(name, 512)
    assert bitmaps_of(node) is bitmaps
    assert [each.name for each in bitmaps] == ["c", None, "b", "a"]
    assert [each.name for each in bitmaps.info()] == ["c", None, "b", "a"]


def test_names_are_found_and_missed(node: FakeNode, bitmap: DirtyBitmap) -> None:
    bitmaps = bitmaps_of(node)
    assert bitmaps.find("b0") is bitmap
    assert bitmaps.find("b1") is None


def test_bad_names_are_refused_in_qemus_words(node: FakeNode, bitmap: DirtyBitmap) -> None:
    bitmaps = bitmaps_of(node)
    assert refusal(bitmaps.add, "b0", 512) == "Bitmap already exists: b0"
    assert refusal(bitmaps.add, "é" * 512, 512) == "Bitmap name too long: " + "é" * 512
    bitmaps.add("x" * 1023, 512)
    assert len(node.bitmaps) == 2


def test_a_bitmap_covers_whole_sectors() -> None:
    assert bitmaps_of(FakeNode(1000)).add("a", 512).length == 1024


def test_only_enabled_bitmaps_record_and_the_routes_are_told(
    node: FakeNode, bitmap: DirtyBitmap
) -> None:
    off = bitmaps_of(node).add("off", 512, enabled=False)
    node.write(0)
    assert (bitmap.info().count, off.info().count) == (65536, 0)
    before = node.changes
    off.enabled, bitmap.enabled = True, False
    assert node.changes > before
    node.write(1 << 19)
    assert (bitmap.info().count, off.info().count) == (65536, 512)


def test_checks_come_in_qemus_order_and_words(bitmap: DirtyBitmap) -> None:
    bitmap.busy = bitmap.readonly = True
    bitmap.set_inconsistent()
    busy = "Bitmap 'b0' is currently in use by another operation and cannot be used"
    assert refusal(bitmap.check) == busy
    bitmap.busy = False
    readonly = "Bitmap 'b0' is readonly and cannot be modified"
    assert refusal(bitmap.check) == readonly
    with pytest.raises(QmpError) as caught:
        bitmap.check(ALLOW_READONLY)
    assert str(caught.value) == "Bitmap 'b0' is inconsistent and cannot be used"
    assert caught.value.hint == "Try block-dirty-bitmap-remove to delete this bitmap from disk\n"
    bitmap.check(Refuse.BUSY)


def test_status_says_the_strongest_state(bitmap: DirtyBitmap) -> None:
    assert bitmap.status == "active"
    bitmap.enabled = False
    assert bitmap.status == "disabled"
    bitmap.busy = True
    assert bitmap.status == "locked"
    bitmap.busy = False
    bitmap.create_successor()
    assert bitmap.status == "frozen"
    bitmap.set_inconsistent()
    assert bitmap.status == "inconsistent"


def test_a_frozen_bitmap_stands_still_while_its_successor_records(
    node: FakeNode, bitmap: DirtyBitmap
) -> None:
    node.write(0)
    bitmap.create_successor()
    node.write(65536)
    assert bitmap.bits.count == 1
    assert bitmap.recording
    assert bitmap.busy
    first, second = bitmaps_of(node).info()
    assert (first.name, first.count, first.recording, first.busy) == (None, 65536, True, False)
    assert (second.name, second.count, second.recording, second.busy) == ("b0", 65536, True, True)


def test_reclaiming_merges_what_was_recorded_meanwhile(node: FakeNode, bitmap: DirtyBitmap) -> None:
    node.write(0)
    bitmap.create_successor()
    node.write(65536)
    assert bitmap.reclaim() is bitmap
    node.write(2 * 65536)
    assert bitmap.bits.count == 3
    assert (bitmap.status, len(node.bitmaps)) == ("active", 1)


def test_abdicating_leaves_only_what_was_recorded_meanwhile(
    node: FakeNode, bitmap: DirtyBitmap
) -> None:
    node.write(0)
    bitmap.persistent = True
    bitmap.create_successor()
    node.write(65536)
    heir = bitmap.abdicate()
    node.write(2 * 65536)
    assert bitmaps_of(node).find("b0") is heir
    assert (heir.bits.count, heir.persistent, heir.busy, heir.status) == (2, True, False, "active")
    assert len(node.bitmaps) == 1


def test_the_successor_of_a_disabled_bitmap_does_not_record(
    node: FakeNode, bitmap: DirtyBitmap
) -> None:
    bitmap.enabled = False
    bitmap.create_successor()
    node.write(0)
    assert not bitmap.recording
    bitmap.reclaim()
    assert (bitmap.bits.count, bitmap.enabled) == (0, False)


def test_freezing_twice_and_thawing_what_is_not_frozen_is_refused(bitmap: DirtyBitmap) -> None:
    assert refusal(bitmap.abdicate) == "Cannot relinquish control if there's no successor present"
    assert refusal(bitmap.reclaim) == "Cannot reclaim a successor when none is present"
    bitmap.create_successor()
    assert "in use by another operation" in refusal(bitmap.create_successor)
    bitmap.busy = False
    again = "Cannot create a successor for a bitmap that already has one"
    assert refusal(bitmap.create_successor) == again


def test_a_bitmap_in_use_is_not_released(node: FakeNode, bitmap: DirtyBitmap) -> None:
    bitmap.busy = True
    with pytest.raises(RuntimeError, match="in use"):
        bitmap.release()
    assert len(node.bitmaps) == 1
    bitmap.busy = False
    bitmap.release()
    assert node.bitmaps == []
    assert list(bitmaps_of(node)) == []


def test_merging_can_be_taken_back(node: FakeNode, bitmap: DirtyBitmap) -> None:
    other = bitmaps_of(node).add("b1", 512, enabled=False)
    node.write(0)
    other.bits.mark(1 << 19, 1)
    old = bitmap.bits.contents()
    bitmap.merge(other)
    assert bitmap.bits.count == 2
    bitmap.bits.restore(old)
    assert bitmap.bits.extents()[0].tolist() == [0]


def test_merges_are_refused_in_qemus_words(node: FakeNode, bitmap: DirtyBitmap) -> None:
    small = bitmaps_of(FakeNode(4096)).add("small", 512)
    sizes = (
        "Bitmaps are of different sizes (destination size is 1048576, source size is 4096) "
        "and can't be merged"
    )
    assert refusal(bitmap.merge, small) == sizes
    source = bitmaps_of(node).add("s", 512)
    source.readonly = True
    bitmap.merge(source)
    assert refusal(source.merge, bitmap) == "Bitmap 's' is readonly and cannot be modified"
    source.busy = True
    assert "Bitmap 's' is currently in use" in refusal(bitmap.merge, source)


def test_all_bitmaps_follow_a_resize(node: FakeNode, bitmap: DirtyBitmap) -> None:
    node.write((1 << 20) - 1)
    for heard in node.on_resize:
        heard(1 << 19)
    assert (bitmap.length, bitmap.bits.count) == (1 << 19, 0)


def test_skip_store_keeps_a_persistent_bitmap_out_of_the_image(bitmap: DirtyBitmap) -> None:
    bitmap.persistent = True
    assert bitmap.stored
    bitmap.skip_store = True
    assert not bitmap.stored
    assert bitmap.info().persistent


@pytest.mark.parametrize(
    ("cluster", "granularity"),
    [(None, 65536), (0, 65536), (512, 4096), (4096, 4096), (16384, 16384), (2 << 20, 65536)],
)
def test_the_default_granularity_follows_the_cluster_size_within_limits(
    cluster: int | None, granularity: int
) -> None:
    assert default_granularity(cluster) == granularity


async def test_a_node_takes_no_writes_while_a_bitmap_of_it_is_read_only(
    node: FakeNode, bitmap: DirtyBitmap
) -> None:
    other = bitmaps_of(node).add("other", 65536)
    bitmap.readonly = other.readonly = True
    bitmap.readonly = False
    (hook,) = node.before_write
    with pytest.raises(PermissionError):
        await hook(0, 1)
    other.release()
    assert not node.before_write
