"""The parser's fast path and its lexer agree; values survive being dumped, printed and read."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from blockemu.qmp_server.errors import ParseError
from blockemu.qmp_server.jsonlex import Lexer
from blockemu.qmp_server.jsonstream import Parser
from blockemu.qmp_server.qapi import U64, QEnum, Struct, dump, visit
from blockemu.qmp_server.qdict import encode, prettify

PIECES = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"a"',
        b'"b"',
        b"'a'",
        b"1",
        b"-",
        b"0",
        b".5",
        b"e3",
        b"true",
        b"nul",
        b'"',
        b"'",
        b"\\",
        b"\\u",
        b"d83d",
        b"\xc3\xa9",
        b"\xc0\x80",
        b"\xff",
        b"\n",
        b" ",
        b"\t",
        b"\x00",
        b"NaN",
        b'{"a": 1}',
        b'{"a":[1,{"b":null}]}\n',
        b'"\\ud83d\\ude00"',
        b"18446744073709551616",
        b'{"a":1,"a":2}',
    ]
)
DATA = st.lists(PIECES, max_size=30).map(b"".join) | st.binary(max_size=60)
TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cn")), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT
FLOATS = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not x.is_integer())
VALUES = st.recursive(
    SCALARS | FLOATS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def plain(items: list[Any]) -> list[Any]:
    return [(type(i).__name__, str(i)) if isinstance(i, ParseError) else repr(i) for i in items]


@given(DATA, st.lists(st.integers(1, 20), max_size=8))
def test_fast_and_slow_paths_agree_however_the_bytes_come(data: bytes, cuts: list[int]) -> None:
    slow: list[Any] = []
    Lexer().feed(data, 0, slow)
    parser, fast, begin = Parser(), [], 0
    for cut in cuts:
        fast += parser.feed(data[begin : begin + cut])
        begin += cut
    fast += parser.feed(data[begin:])
    assert plain(fast) == plain(slow)


@given(VALUES)
def test_what_is_printed_is_read_back(value: Any) -> None:
    for text in (encode([value]), prettify(encode([value]))):
        assert Parser().feed(text.encode("ascii")) == [[value]]


class Hue(QEnum):
    RED = "red"
    BLUE = "blue"


class Leaf(Struct):
    name: str
    hue: Hue | None = None
    count: U64 | None = None


class Tree(Struct):
    leaves: list[Leaf]
    deep: "Tree | None" = None
    ratio: float | None = None


LEAVES = st.builds(
    Leaf,
    name=TEXT,
    hue=st.none() | st.sampled_from([*Hue]),
    count=st.none() | st.integers(0, 2**64 - 1),
)
TREES = st.recursive(
    st.builds(Tree, leaves=st.lists(LEAVES, max_size=3)),
    lambda inner: st.builds(Tree, leaves=st.just([]), deep=inner, ratio=FLOATS),
    max_leaves=3,
)


@given(TREES)
def test_dump_and_visit_are_inverse(tree: Tree) -> None:
    (read,) = Parser().feed(encode(dump(tree)).encode("ascii"))
    assert visit(Tree, read) == tree
