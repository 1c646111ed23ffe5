"""qemu-io's numbers, options and lines of text; what is expected was recorded from QEMU 7.2."""

import math

import pytest

from blockemu.qemu_io.options import parse
from blockemu.qemu_io.refusals import (
    BadOption,
    BadPattern,
    NotANumber,
    NotASize,
    OptionWithoutValue,
    SizeTooLarge,
)
from blockemu.qemu_io.report import dump, report
from blockemu.qemu_io.sizes import (
    duration_text,
    parse_milliseconds,
    parse_pattern,
    parse_size,
    size_text,
)


def never(text: str) -> None:
    pytest.fail(f"warned: {text}")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("+7", 7),
        ("\t7", 7),
        ("010", 10),
        ("1b", 1),
        ("1B", 1),
        ("1k", 1 << 10),
        ("1.5K", 1536),
        ("1.k", 1024),
        ("1.", 1),
        ("1.0", 1),
        ("0.0009765625M", 1024),
        ("2m", 2 << 20),
        ("3G", 3 << 30),
        ("1T", 1 << 40),
        ("1P", 1 << 50),
        ("7E", 7 << 60),
        ("1.5E", 3 << 59),
        ("0x10", 16),
        ("0X1f", 31),
        ("0x1E", 0x1E),
        ("9223372036854775807", (1 << 63) - 1),
        ("0000000000000000000000000000000000001", 1),
    ],
)
def test_a_size_is_read_as_qemu_reads_it(text, size):
    assert parse_size(text, never) == size


@pytest.mark.parametrize(
    "text",
    ["", "zz", "-1", "1.5", "1.5B", ".5k", "1e3", "1.5e3", "0x", "0x1.8", "00x10", "1kk", "1 ", "1x", "k",
     "99999999999999999999k"],
)  # fmt: skip
def test_what_is_no_size_is_refused(text):
    with pytest.raises(NotASize) as e:
        parse_size(text, never)
    assert str(e.value) == (
        f"Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {text}\n"
    )


@pytest.mark.parametrize(
    "text", ["8E", "9E", "99999999T", "9223372036854775808", "99999999999999999999", "9" * 5000]
)
def test_a_size_of_8_eib_or_more_is_too_large(text):
    with pytest.raises(SizeTooLarge) as e:
        parse_size(text, never)
    assert str(e.value) == f"Parsing error: argument too large -- {text}\n"


def test_a_suffix_on_a_hex_number_is_taken_with_a_warning():
    warnings: list[str] = []
    assert parse_size("0x1k", warnings.append) == 1024
    assert warnings == ["Using a multiplier suffix on hex numbers is deprecated: 0x1k"]


@pytest.mark.parametrize(
    ("text", "byte"), [("0", 0), ("255", 255), ("0xff", 255), ("0377", 255), ("+1", 1), ("-0", 0)]
)
def test_a_pattern_is_a_c_constant(text, byte):
    assert parse_pattern(text, never) == byte


@pytest.mark.parametrize("text", ["256", "-1", "08", "1k", "", "x", "0x", "1 "])
def test_what_is_no_byte_is_no_pattern(text):
    with pytest.raises(BadPattern) as e:
        parse_pattern(text, never)
    assert str(e.value) == f"{text} is not a valid pattern byte\n"


def test_milliseconds_are_a_c_constant_that_is_not_negative():
    assert parse_milliseconds("0x10") == 16
    for text in ("-1", "x", "1s"):
        with pytest.raises(NotANumber, match=f"{text} is not a valid number"):
            parse_milliseconds(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 bytes"),
        (512, "512 bytes"),
        (500.5, "500.500000 bytes"),
        (291.931168, "291.931168 bytes"),
        (1023.9999, "1023.999900 bytes"),
        (1024, "1 KiB"),
        (1536, "1.500 KiB"),
        (1048577, "1 MiB"),
        (1 << 30, "1 GiB"),
        (3 << 39, "1.500 TiB"),
        (1 << 50, "1 PiB"),
        (1 << 60, "1 EiB"),
        (math.inf, "inf EiB"),
    ],
)
def test_a_size_is_printed_in_the_largest_unit_that_gives_at_least_one(value, text):
    assert size_text(value) == text


@pytest.mark.parametrize(
    ("nanoseconds", "plain", "fixed"),
    [
        (0, "00.00 sec", "0:00:00.00"),
        (250_000_000, "00.25 sec", "0:00:00.25"),
        (999_999_999, "01.00 sec", "0:00:01.00"),
        (1_500_000_000, "0:00:01.50", "0:00:01.50"),
        (1_822_620_000_000, "0:30:22.62", "0:30:22.62"),
        (90_061_000_000_000, "25:01:01.00", "25:01:01.00"),
    ],
)
def test_a_time_has_hours_from_one_second_on(nanoseconds, plain, fixed):
    assert duration_text(nanoseconds) == plain
    assert duration_text(nanoseconds, fixed=True) == fixed


def test_a_report_tells_bytes_and_rates():
    assert report("wrote", 250_000_000, 512, 65536, 65536) == (
        "wrote 65536/65536 bytes at offset 512\n"
        "64 KiB, 1 ops; 00.25 sec (256 KiB/sec and 4.0000 ops/sec)\n"
    )


def test_a_report_for_machines_is_one_line_with_commas():
    text = report("read", 250_000_000, 0, 1024, 1024, machine=True)
    assert text == "1024,1,0:00:00.25,4096.000,4.000\n"


def test_a_clock_that_stands_still_gives_a_report_of_the_usual_shape():
    assert report("read", 0, 0, 0, 0) == (
        "read 0/0 bytes at offset 0\n"
        "0 bytes, 1 ops; 00.00 sec (0 bytes/sec and 1000000000.0000 ops/sec)\n"
    )


def test_a_dump_has_sixteen_bytes_in_a_line_and_shows_letters_and_digits():
    assert dump(b"\xcd\xcd" + b"A" * 12 + b" 9\xff", 510) == (
        "000001fe:  cd cd 41 41 41 41 41 41 41 41 41 41 41 41 20 39  ..AAAAAAAAAAAA.9\n"
        "0000020e:  ff  .\n"
    )
    assert dump(b"", 0) == ""


def test_options_may_stand_anywhere_before_two_dashes():
    options = parse("read", "vP:q", {"P": parse_pattern}, ["0", "-vP1", "512", "--", "-q"], never)
    assert options.values == {"v": True, "P": 1}
    assert options.operands == ["0", "512", "-q"]
    assert options.first == "-vP1"


def test_a_value_may_be_a_word_of_its_own_and_begin_with_a_dash():
    assert parse("x", "s:", {}, ["-s", "-q"], never).values == {"s": "-q"}


def test_a_lone_dash_is_an_operand():
    assert parse("x", "s", {}, ["-"], never).operands == ["-"]


@pytest.mark.parametrize(
    ("word", "letter"), [("-x", "x"), ("--foo", "-"), ("-1", "1"), ("-v:", ":")]
)
def test_an_unknown_letter_is_refused_in_getopts_words(word, letter):
    with pytest.raises(BadOption) as e:
        parse("r", "v", {}, [word], never)
    assert str(e.value) == f"r: invalid option -- '{letter}'\n"


def test_a_missing_value_is_refused_in_getopts_words():
    with pytest.raises(OptionWithoutValue) as e:
        parse("read", "P:", {}, ["0", "-P"], never)
    assert str(e.value) == "read: option requires an argument -- 'P'\n"


def test_what_is_wrong_first_is_told_first():
    with pytest.raises(BadPattern):
        parse("read", "P:", {"P": parse_pattern}, ["-P", "300", "-x"], never)
    with pytest.raises(BadOption):
        parse("read", "P:", {"P": parse_pattern}, ["-x", "-P", "300"], never)
