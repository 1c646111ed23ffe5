"""QEMU's JSON dialect: what is read, what is refused, how it is printed."""

from typing import Any

import pytest

from blockemu.qmp_server.errors import ParseError
from blockemu.qmp_server.jsonstream import Parser
from blockemu.qmp_server.qdict import encode, in_order, prettify


def read(data: bytes, step: int = 0) -> list[Any]:
    """Feed data at once or in steps; errors as their text in a tuple."""
    parser, out = Parser(), []
    for begin in range(0, len(data), step or len(data)):
        out += parser.feed(data[begin : begin + (step or len(data))])
    return [(str(item),) if isinstance(item, ParseError) else item for item in out]


def refused(words: str) -> tuple[str]:
    return (f"JSON parse error, {words}",)


CASES = [
    (b'{"a": 1}{"b": [true, false, null]}\n', [{"a": 1}, {"b": [True, False, None]}]),
    (b"{'a': 'it\\'s \"x\"'}", [{"a": 'it\'s "x"'}]),
    (b'1 "x" [] tru ', [1, "x", [], refused("invalid keyword 'tru'")]),
    (b'{"a": 1, "a": 2}', [refused("duplicate key")]),
    (b'{"a": 1,}', [refused("expecting value")]),
    (b'{"a" 1}', [refused("missing : in object pair")]),
    (b"{1: 2}", [refused("key is not a string in object")]),
    (b"[1 2]", [refused("expected separator in list")]),
    (b'{"a": 1 2}', [refused("expected separator in dict")]),
    (b"}", [refused("expecting value")]),
    (b'{"a": 01}', [refused("stray '01'"), refused("expecting value")]),
    (b'{"a": "x\n"}', [refused("stray '\"x\n'"), refused("expecting value")]),
    (b"\xff{}", [refused("stray '\ufffd'"), {}]),
    (b'{"a": \x00}', [refused("stray ''"), refused("expecting value")]),
    (b'"\\ud83d\\ude00" ', ["\U0001f600"]),
    (b'"\\ud83d" ', [refused("\\ud83d is not a valid Unicode character")]),
    (b'"\\u12" ', [refused('\\u12" is not a valid Unicode character')]),
    (b'"\\ufffe" ', [refused("\\ufffe is not a valid Unicode character")]),
    (b'"\\x" ', [refused("invalid escape sequence in string")]),
    (b'"\xc3\xa9\xc0\x80" ', ["\xe9\0"]),
    (b'"\xed\xa0\x80" ', [refused("invalid UTF-8 sequence in string")]),
    (b"9223372036854775808 18446744073709551616 ", [2**63, 2.0**64]),
    (b"-9223372036854775808 -9223372036854775809 ", [-(2**63), -(2.0**63)]),
    (b'{"a": NaN}', [refused("stray 'N'"), refused("expecting value")]),
    (b"[" * 1025, [("JSON nesting depth limit exceeded",)]),
]


@pytest.mark.parametrize("step", [0, 1, 7])
@pytest.mark.parametrize(("data", "expected"), CASES)
def test_the_parser_reads_what_qemu_reads(data: bytes, expected: Any, step: int) -> None:
    assert read(data, step)[: len(expected)] == expected


@pytest.mark.parametrize("step", [0, 1])
def test_1024_levels_are_read(step: int) -> None:
    (value,) = read(b"[" * 1024 + b"]" * 1024, step)
    levels = 0
    while value:
        (value,) = value
        levels += 1
    assert levels == 1023


def test_too_many_tokens_and_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from blockemu.qmp_server import jsonlex

    monkeypatch.setattr(jsonlex, "MOST_TOKENS", 10)
    assert read(b"[1,2,3,4,5,6", 1) == [("JSON token count limit exceeded",)]
    monkeypatch.setattr(jsonlex, "MOST_BYTES", 10)
    assert read(b'["abcde", "fghij"', 1) == [("JSON token size limit exceeded",)]
    assert read(b'"aaaaaaaaaaaaaaa', 1)[0] == ("JSON token size limit exceeded",)
    assert read(b'"aaaaaaaaaaaaaaa')[0] == ("JSON token size limit exceeded",)


def test_flush_ends_what_is_open() -> None:
    parser = Parser()
    assert parser.feed(b"12") == []
    assert parser.flush() == [12]
    parser.feed(b'{"a": 1')
    assert str(parser.flush()[0]) == "JSON parse error, premature EOI"
    parser.feed(b'{"a')
    assert str(parser.flush()[0]) == "JSON parse error, stray '\"a'"
    assert parser.feed(b"{}") == [{}]


# Printing


def test_keys_come_in_qemus_order() -> None:
    version = {"major": 7, "minor": 2, "micro": 22}
    assert encode(version) == '{"micro": 22, "minor": 2, "major": 7}'
    assert in_order(["event", "data", "timestamp"]) == ["timestamp", "event", "data"]
    assert in_order(["desc", "class"]) == ["class", "desc"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('\xe9\x7f\x01\n"\\/', '"\\u00E9\\u007F\\u0001\\n\\"\\\\/"'),
        ("\U0001f600\ufffe\udcff\0", '"\\uD83D\\uDE00\\uFFFD\\uFFFD\\u0000"'),
        ("\\u00e9", '"\\\\u00e9"'),
        ([0.1, 1.0, 1e22, -0.0, float("inf")], "[0.10000000000000001, 1, 1e+22, -0, inf]"),
        ([True, None, {}, [], 2**64 - 1], "[true, null, {}, [], 18446744073709551615]"),
    ],
)
def test_values_are_printed_as_qemu_does(value: Any, text: str) -> None:
    assert encode(value) == text


def test_pretty_printing_puts_empty_containers_on_two_lines() -> None:
    text = prettify(encode({"return": [[], {"a": "x, {"}]}))
    assert text.split("\r\n") == [
        "{",
        '    "return": [',
        "        [",
        "        ],",
        "        {",
        '            "a": "x, {"',
        "        }",
        "    ]",
        "}",
    ]
