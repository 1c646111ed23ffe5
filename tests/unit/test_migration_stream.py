"""Streams: what is written is read again, in whatever pieces it comes, and nothing else is."""

import asyncio
import random
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockemu.bitmaps.bitmap import Bitmap
from blockemu.migration import bitmap_wire, sections, wire
from blockemu.migration.load import Load, Settings
from blockemu.migration.wire import Input
from blockemu.schema.run_state import RunState
from blockemu.testing import running

MACHINE = Settings("none", postcopy_ram=False, validate_uuid=False)


class Bitmaps:
    """Takes whatever comes between a section's head and its footer."""

    def __init__(self) -> None:
        self.cancelled = False

    def load(self, source, version):
        yield from source.exactly(3)
        return 0

    def cancel(self) -> None:
        self.cancelled = True


def read(data: bytes, size: int = 1 << 16, expected: Settings = MACHINE):
    """Read a stream that comes in pieces; return the result, what was read and what was said."""
    said: list[str] = []
    source = Input()
    load = Load(source, expected, Bitmaps(), said.append)
    reading, at = load.read(), 0
    while True:
        try:
            next(reading)
        except StopIteration as e:
            return e.value, load, said
        source.feed(data[at : at + size])
        at += size


WHOLE = sections.snapshot("none", 123456789, "paused")
SEALED = WHOLE.index(sections.DESCRIPTION.encode()) - 5  # what follows is for people


@pytest.mark.parametrize("size", [1, 2, 7, 4096])
def test_a_stream_is_read_in_whatever_pieces_it_comes(size):
    status, load, said = read(WHOLE, size)
    assert (status, said) == (0, [])
    assert (load.run_state, load.clock) == (RunState.PAUSED, 123456789)


@pytest.mark.parametrize("length", range(SEALED))
def test_a_stream_that_is_cut_off_is_no_machine(length):
    status, _, _ = read(WHOLE[:length])
    assert status < 0


def test_the_description_may_be_missing():
    status, _, said = read(WHOLE[:SEALED])
    assert (status, said) == (0, ["Expected vmdescription section, but got 0"])


@pytest.mark.parametrize(
    ("at", "byte", "words"),
    [
        (0, 0, "Not a migration stream"),
        (7, 2, "SaveVM v2 format is obsolete and don't work anymore"),
        (7, 4, "Unsupported migration stream version"),
        (8, 1, "Configuration section missing"),
        (13, ord("x"), "Machine type received is 'xone' and local is 'none'"),
        (17, 9, "Unknown savevm section type 9"),
        (26, 1, "Unknown savevm section or instance 'ram' 16777216. Make sure that your current VM "
                "setup matches your saved VM setup, including any hotplugged devices"),
        (33, 5, "savevm: unsupported version 5 for 'ram' v4"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(at, byte, words):
    data = bytearray(WHOLE)
    data[at] = byte
    status, _, said = read(bytes(data))
    assert status < 0
    assert said[0] == words


def test_memory_is_refused():
    head = wire.header("none") + wire.begin(wire.SECTION_START, 2, "ram", 4)
    size = (1 << 20 | wire.RAM_SIZE).to_bytes(8, "big")
    status, _, said = read(head + size + wire.counted("pc.ram") + bytes(8))
    assert status < 0
    assert said == [
        'Unknown ramblock "pc.ram", cannot accept migration',
        "error while loading state for instance 0x0 of device 'ram'",
    ]


def test_a_footer_of_another_section_is_told():
    data = wire.header("none") + wire.begin(wire.SECTION_START, 2, "ram", 4) + wire.ram()
    status, _, said = read(data + wire.footer(3))
    assert (status, said) == (
        -22,
        ["Mismatched section id in footer for ram - read 0x3 expected 0x2"],
    )


def test_failing_cancels_bitmaps():
    said: list[str] = []
    bitmaps = Bitmaps()
    load = Load(Input(wire.header("none"), ended=True), MACHINE, bitmaps, said.append)
    with pytest.raises(StopIteration):
        next(load.read())
    assert bitmaps.cancelled


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_confuse_the_reader(noise):
    status, load, _ = read(wire.header("none") + noise, 11)
    assert status <= 0
    assert not load.listening


@settings(max_examples=80, deadline=None)
@given(
    length=st.integers(1, 40 << 20).map(lambda n: n // 512 * 512 or 512),
    shift=st.integers(9, 22),
    marks=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 1 << 20)), max_size=8),
    most=st.integers(1, 600),
)
def test_chunks_hold_all_bits_and_the_disk_once(length, shift, marks, most):
    bits = Bitmap(length, 1 << shift)
    for where, size in marks:
        start = int(where * (length - 1))
        bits.mark(start, min(size, length - start))
    copy, at = Bitmap(length, 1 << shift), 0
    copy.mark(0, length)
    for flags, rest in bitmap_wire.Chunks(bits).parts(most):
        source = Input(bytes([flags]) + rest, ended=True)
        while source.available:
            found = bitmap_wire.take_zeroes(source)
            if found is None:
                head = bytes(source.ahead(13))
                assert head[0] in (bitmap_wire.BITS, bitmap_wire.BITS | bitmap_wire.ZEROES)
                found = (
                    int.from_bytes(head[1:9], "big") * 512,
                    int.from_bytes(head[9:], "big") * 512,
                )
                source.skip(13)
                if head[0] == bitmap_wire.BITS:
                    size = int.from_bytes(source.ahead(8), "big")
                    source.skip(8)
                    data = bytes(source.ahead(size))
                    source.skip(size)
                    assert size % bitmap_wire.ALIGN == 0
                    copy.deserialise(*found, data[: copy.serial_size(*found)])
                    assert found[0] == at
                    at += found[1]
                    continue
            assert found[0] == at
            at += found[1]
            copy.reset(found[0], found[1])
    assert at == length
    assert copy.sha256() == bits.sha256()


def test_flags_take_one_two_or_four_bytes():
    def flags(data: bytes) -> int:
        reading = bitmap_wire.read_flags(Input(data, ended=True))
        with pytest.raises(StopIteration) as end:
            next(reading)
        return end.value.value

    assert flags(b"\x42") == 0x42
    assert flags(b"\x80\x42") == 0x42
    assert flags(b"\x80\x80\x00\x42") == 0x42


def test_sparse_bitmaps_cost_what_is_set():
    bits = Bitmap(1 << 40, 512)
    spots = random.Random(1).sample(range(1 << 31), 20)
    for spot in spots:
        bits.mark(spot * 512, 512)
    parts = list(bitmap_wire.Chunks(bits).parts(1 << 20))
    assert len(parts) <= 2 * len(spots) + 2


async def test_what_was_to_be_encrypted_is_not_sent_in_clear_text(tmp_path: Path):
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "there"))
        listener.listen()
        listener.setblocking(False)
        async with running() as emu:
            await emu.execute("migrate-set-parameters", tls_creds="tls0")
            await emu.execute("migrate", uri=f"unix:{tmp_path}/there")
            there, _ = await loop.sock_accept(listener)
            with there:
                assert await loop.sock_recv(there, 1) == b""
            told = await emu.execute("query-migrate")
            assert told == {"status": "failed", "error-desc": "No TLS credentials with id 'tls0'"}
