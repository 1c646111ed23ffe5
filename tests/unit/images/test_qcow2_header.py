"""The qcow2 header as a codec; that the texts are QEMU's is for tests/compat to show."""

from __future__ import annotations

import struct

import pytest

from blockemu.images.errors import FormatError
from blockemu.images.qcow2 import errors, new_image
from blockemu.images.qcow2.bitmaps import BadBitmap, BrokenDirectory, WrongCount, parse_directory
from blockemu.images.qcow2.extensions import (
    BitmapsExtension,
    Extensions,
    HeaderFullError,
    NeedMoreError,
    pack_first_cluster,
    parse_extensions,
)
from blockemu.images.qcow2.header import (
    Header,
    check_features,
    check_header,
    check_tables,
    parse_header,
)
from blockemu.images.qcow2.snapshots import NeedMoreError as NeedMoreSnapshots
from blockemu.images.qcow2.snapshots import parse_snapshots

EXTENSIONS = Extensions(
    backing_format="raw",
    bitmaps=BitmapsExtension(nb_bitmaps=1, directory_size=32, directory_offset=65536),
    unknown=[(0x11111111, b"abc"), (0x22222222, b"")],
)


def parsed(data: bytes) -> tuple[Header, Extensions]:
    header = parse_header(data)
    check_header(header)
    check_tables(header)
    return header, parse_extensions(data[: header.cluster_size], header)


@pytest.mark.parametrize("order", range(7))
@pytest.mark.parametrize("bits", [9, 12, 16, 21])
def test_a_new_image_counts_its_own_clusters(bits: int, order: int) -> None:
    for size in 0, 1 << 20, 5 << 30:
        data = new_image(size, cluster_bits=bits, refcount_order=order)
        header, _ = parsed(data)
        assert header.size == size
        assert len(data) % header.cluster_size == 0
        (block,) = struct.unpack_from(">Q", data, header.refcount_table_offset)
        width = 1 << order
        last = len(data) // header.cluster_size - 1
        block += (last >> header.geometry().counts_bits) * header.cluster_size
        at = last % header.geometry().counts_per_block
        if width < 8:
            count = data[block + at * width // 8] >> at * width % 8 & (1 << width) - 1
        else:
            count = int.from_bytes(data[block + at * width // 8 :][: width // 8], "big")
        assert count == 1


def test_what_a_header_says_survives_being_written_anew() -> None:
    header = Header(size=1 << 30, autoclear_features=1)
    data = pack_first_cluster(header, b"future!!", EXTENSIONS, "base.raw")
    again = parse_header(data)
    assert again == header
    assert again.header_length == 120
    assert data[112:120] == b"future!!"
    found = parse_extensions(data, again)
    assert (found.backing_format, found.bitmaps) == ("raw", EXTENSIONS.bitmaps)
    assert found.unknown == EXTENSIONS.unknown[::-1]
    name = data[again.backing_file_offset :][: again.backing_file_size]
    assert name == b"base.raw"


def test_version_2_has_a_shorter_header() -> None:
    header = Header(version=2, size=1 << 20)
    data = pack_first_cluster(header, b"", Extensions(backing_format="raw"), None)
    assert struct.unpack_from(">I", data, 72) == (0xE2792ACA,)
    assert parse_extensions(data, parse_header(data)).backing_format == "raw"


def test_small_clusters_do_without_feature_names() -> None:
    for bits, there in ((12, False), (13, True)):
        data = new_image(1 << 20, cluster_bits=bits)
        assert (b"extended L2 entries" in data) == there


def test_a_name_that_does_not_fit_is_refused() -> None:
    with pytest.raises(HeaderFullError):
        pack_first_cluster(Header(cluster_bits=9), b"", Extensions(), "x" * 400)


def test_extensions_ask_for_more_bytes_where_they_go_on() -> None:
    data = new_image(1 << 20, backing_format="raw", backing_file="x")
    header = parse_header(data)
    with pytest.raises(NeedMoreError):
        parse_extensions(data[:118], header)
    with pytest.raises(NeedMoreError):
        parse_extensions(data[:121], header)


@pytest.mark.parametrize(
    ("at", "code", "value", "error"),
    [
        (0, "I", 0, errors.NotQcow2),
        (4, "I", 1, errors.BadVersion),
        (20, "I", 8, errors.BadClusterSize),
        (100, "I", 103, errors.HeaderTooShort),
        (100, "I", 65537, errors.HeaderTooLong),
        (8, "Q", 65537, errors.BadBackingOffset),
        (104, "B", 2, errors.BadCompression),
        (104, "B", 1, errors.CompressionBit),
        (96, "I", 7, errors.BadRefcountOrder),
        (56, "I", 0, errors.NoRefcountTable),
        (56, "I", 129, errors.TableTooLarge),
        (48, "Q", 1, errors.BadTableOffset),
        (60, "I", 65537, errors.TableTooLarge),
        (36, "I", 0, errors.L1TooSmall),
        (36, "I", 1 << 23, errors.TableTooLarge),
        (40, "Q", 1 << 63, errors.BadTableOffset),
    ],
)
def test_a_lie_has_its_own_error(at: int, code: str, value: int, error: type[FormatError]) -> None:
    data = bytearray(new_image(1 << 20))
    struct.pack_into(">" + code, data, at, value)
    with pytest.raises(error):
        parsed(bytes(data))


def test_unknown_features_are_named_as_far_as_the_image_does() -> None:
    row = struct.pack("BB46s", 0, 5, b"five") + struct.pack("BB46s", 1, 6, b"compatible")
    header = Header(incompatible_features=0x60)
    with pytest.raises(errors.UnsupportedFeatures, match=r"five, Unknown incompatible feature: 40"):
        check_features(header, row)
    check_features(Header(incompatible_features=0x1F), b"")


def test_any_bytes_are_a_header_or_a_format_error() -> None:
    good = bytearray(new_image(1 << 20))
    for at in range(112):
        for value in 0, 1, 0x7F, 0xFF:
            data = good.copy()
            data[at] = value
            try:
                header, _ = parsed(bytes(data))
                check_features(header, b"")
            except (FormatError, NeedMoreError):
                continue
            assert header.cluster_size == 65536


SNAPSHOT = struct.pack(">QIHHIIQII", 65536, 1, 1, 3, 5, 6, 7_000_000_008, 9, 24)
SNAPSHOT += struct.pack(">QQQ", 1 << 33, 1 << 20, 77) + b"1one"


def test_snapshots_are_read() -> None:
    table, size = parse_snapshots(SNAPSHOT.ljust(72, b"\0") + SNAPSHOT, 2, 0)
    assert [s.name for s in table] == ["one", "one"]
    assert (table[0].id, table[0].vm_state_size, table[0].icount) == ("1", 1 << 33, 77)
    assert size == 72 + len(SNAPSHOT)


def test_old_snapshots_have_the_disks_size() -> None:
    old = struct.pack(">QIHHIIQII", 65536, 1, 1, 1, 0, 0, 0, 9, 0) + b"1s"
    (snapshot,), _ = parse_snapshots(old, 1, 12345)
    assert (snapshot.disk_size, snapshot.vm_state_size, snapshot.icount) == (12345, 9, None)


def test_a_cut_snapshot_table_asks_for_more() -> None:
    for cut in range(len(SNAPSHOT)):
        with pytest.raises(NeedMoreSnapshots):
            parse_snapshots(SNAPSHOT[:cut], 1, 0)


def entry(**changes: int) -> bytes:
    fields = {"offset": 65536, "size": 1, "flags": 2, "type": 1, "granularity": 16, "name": 1}
    fields |= changes
    extra = fields.pop("extra", 0)
    head = struct.pack(">QIIBBHI", *fields.values(), extra)
    return (head + bytes(extra) + b"b" * fields["name"] + bytes(8))[
        : (24 + extra + fields["name"] + 7) & ~7
    ]


def test_the_bitmap_directory_is_read() -> None:
    found = parse_directory(entry() + entry(flags=3), 2, 1 << 30, 65536)
    assert [(b.name, b.in_use) for b in found] == [("b", False), ("b", True)]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (entry(size=0), BadBitmap),
        (entry(offset=1), BadBitmap),
        (entry(granularity=8), BadBitmap),
        (entry(granularity=32), BadBitmap),
        (entry(flags=4), BadBitmap),
        (entry(type=2), BadBitmap),
        (entry(granularity=9), BadBitmap),
        (entry()[:24], BrokenDirectory),
        (entry() + b"x", BrokenDirectory),
        (entry() * 2, WrongCount),
        (b"", WrongCount),
    ],
)
def test_a_wrong_bitmap_directory_is_refused(data: bytes, error: type[FormatError]) -> None:
    with pytest.raises(error):
        parse_directory(data, 1, 1 << 30, 65536)
