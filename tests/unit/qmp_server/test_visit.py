"""Values against types: what fits, and QEMU's words for what does not."""

import enum
from typing import Annotated, Any, Literal

import pytest

from blockemu.qmp_server.dump import text
from blockemu.qmp_server.ghash import first_left
from blockemu.qmp_server.qapi import (
    ABSENT,
    ALL,
    U8,
    U32,
    U64,
    Alternate,
    Deprecated,
    Features,
    InvalidInput,
    Profile,
    QEnum,
    Removed,
    SelfCheckError,
    Since,
    Size,
    Struct,
    Unexpected,
    Union,
    Wire,
    check,
    dump,
    replace,
    values,
    visit,
)
from blockemu.qmp_server.qdict import encode

SHAPES = Union("Shape", "kind")


@values(since={"blue": "5.2"}, deprecated={"red": "6.2"})
class Colour(QEnum):
    RED = "red"
    BLUE = "blue"


class Mode(enum.Enum):
    FAST = "fast"


class Shape(Struct):
    union = SHAPES
    colour: Colour | None = None


class Dot(Shape, tag="dot"):
    pass


class Line(Shape, tag="line", since="5.2"):
    length: int
    points: list[int] | None = None
    next: Annotated["str | Shape | None", Alternate("ShapeRefOrNull", (SHAPES, str, None))] = ABSENT


class Pen(Struct):
    mode: Mode | None = None
    small: U8 | None = None
    width: U32 | None = None
    big: U64 | None = None
    size: Size | None = None
    scale: float | None = None
    on: bool | None = None
    word: str | None = None
    style: Literal["dashed", "solid"] | None = None
    anything: Any = ABSENT
    from_: str | None = None
    x_y: Annotated[str | None, Wire("x_y")] = None
    nothing: None = ABSENT
    inks: list[Colour] | None = None
    shapes: list[Shape] | None = None


class Aged(Struct):
    new: Annotated[int | None, Since("6.2")] = None
    old: Annotated[int | None, Deprecated("5.2"), Removed("6.2")] = None
    odd: Annotated[int | None, Features("unstable")] = None


def error(hint: Any, value: Any, **options: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        visit(hint, value, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5, "Invalid parameter type for '<anonymous>', expected: object"),
        ({"small": 256}, "Parameter 'small' expects uint8_t"),
        ({"small": "1"}, "Parameter 'small' expects uint64"),
        ({"width": -1}, "Parameter 'width' expects uint32_t"),
        ({"width": True}, "Parameter 'width' expects uint64"),
        ({"big": 1.0}, "Parameter 'big' expects uint64"),
        ({"size": 2**64}, "Parameter 'size' expects uint64"),
        ({"scale": "1"}, "Invalid parameter type for 'scale', expected: number"),
        ({"on": 1}, "Invalid parameter type for 'on', expected: boolean"),
        ({"word": None}, "Invalid parameter type for 'word', expected: string"),
        ({"nothing": 0}, "Invalid parameter type for 'nothing', expected: null"),
        ({"mode": "slow"}, "Parameter 'mode' does not accept value 'slow'"),
        ({"style": "dotted"}, "Parameter 'style' does not accept value 'dotted'"),
        ({"mode": 1}, "Invalid parameter type for 'mode', expected: string"),
        ({"inks": {}}, "Invalid parameter type for 'inks', expected: array"),
        ({"inks": ["red", 1]}, "Invalid parameter type for 'inks[1]', expected: string"),
        ({"inks": ["red", "x"]}, "Parameter 'null' does not accept value 'x'"),
        ({"from_": "x"}, "Parameter 'from_' is unexpected"),
        ({"x-y": "x"}, "Parameter 'x-y' is unexpected"),
        ({"shapes": [{}]}, "Parameter 'shapes[0].kind' is missing"),
        ({"shapes": [{"kind": "ring"}]}, "Parameter 'kind' does not accept value 'ring'"),
        ({"shapes": [{"kind": "line"}]}, "Parameter 'shapes[0].length' is missing"),
    ],
)
def test_a_struct_refuses_in_qemus_words(value: Any, words: str) -> None:
    assert error(Pen, value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            {"kind": "line", "length": 2**63},
            "Invalid parameter type for 'length', expected: integer",
        ),
        (
            {"kind": "line", "length": 1, "next": 5},
            "Invalid parameter type for 'next', expected: ShapeRefOrNull",
        ),
        (
            {"kind": "line", "length": 1, "next": {"kind": "dot", "x": 1}},
            "Parameter 'next.x' is unexpected",
        ),
        (
            {"kind": "line", "length": 1, "points": [1, "2"]},
            "Invalid parameter type for 'points[1]', expected: integer",
        ),
        ({"kind": 1}, "Invalid parameter type for 'kind', expected: string"),
    ],
)
def test_a_union_refuses_in_qemus_words(value: Any, words: str) -> None:
    assert error(Shape, value) == words


def test_a_union_gives_the_case_and_tells_absent_from_null() -> None:
    line = visit(Shape, {"kind": "line", "length": 3, "next": {"kind": "dot", "colour": "blue"}})
    assert line == Line(length=3, next=Dot(colour=Colour.BLUE))
    assert visit(Shape, {"kind": "line", "length": 3}).next is ABSENT
    assert visit(Shape, {"kind": "line", "length": 3, "next": None}).next is None


def test_a_case_can_be_visited_alone_without_the_discriminator() -> None:
    assert visit(Line, {"kind": "line", "length": 1}, drop="kind") == Line(length=1)
    with pytest.raises(Unexpected) as caught:
        visit(Line, {"length": 1, "size": 1})
    assert caught.value.where == "size"


def test_a_path_names_the_root() -> None:
    assert (
        error(Pen, {"word": 1}, path="pen")
        == "Invalid parameter type for 'pen.word', expected: string"
    )


def test_uint64_takes_negative_numbers_as_qemu_does() -> None:
    assert visit(Pen, {"big": -1}).big == 2**64 - 1


@pytest.mark.parametrize(
    ("names", "named"),  # as the real daemon answered blockdev-add of null-co
    [
        ("driver node-name g_-ffgi df _clpdeid jaonmk nmee", "_clpdeid"),
        (
            "ppc_ngp klecbc gcgnhp dbncgf lo-lmh -cp_ node-name obi k agadhpf- l eeocb gg-gb-od aoomo driver",
            "-cp_",
        ),
        (
            "fchfho hmb pknnoa dod-m node-name hi--n m igknde hneakl_ fh pb -hnfn-p eapmb jjcb--hd pp p mef fb g_ic d"
            " driver kfkclmmj abebdb -- _b feige-kh ap o_mbnb ilml_nc akd dm k_",
            "m",
        ),
    ],
)
def test_one_of_several_unexpected_members_is_named_as_glibs_hash_table_has_it(
    names: str, named: str
) -> None:
    assert first_left(names.split(), ["driver", "node-name"]) == named
    assert error(Pen, {"a": 1, "b": 2, "c": 3}) == "Parameter 'b' is unexpected"


@pytest.mark.parametrize(
    ("given", "member", "value"),
    [
        ({"size": "1.5k"}, "size", 1536),
        ({"size": "0x10"}, "size", 16),
        ({"big": "0x10"}, "big", 16),
        ({"big": "010"}, "big", 8),
        ({"big": "-1"}, "big", 2**64 - 1),
        ({"on": "y"}, "on", True),
        ({"on": "false"}, "on", False),
        ({"scale": "1e3"}, "scale", 1000.0),
        ({"inks": ["red"]}, "inks", [Colour.RED]),
        ({"big": 7, "on": True}, "on", True),
    ],
)
def test_keyval_reads_scalars_from_strings(given: Any, member: str, value: Any) -> None:
    assert getattr(visit(Pen, given, keyval=True), member) == value


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"size": "1x"}, "Parameter 'size' expects size"),
        ({"size": "1.5"}, "Parameter 'size' expects size"),
        ({"size": "16E"}, "Parameter 'size' expects size"),
        ({"big": "08"}, "Parameter 'big' expects integer"),
        ({"width": "4294967296"}, "Parameter 'width' expects uint32_t"),
        ({"on": "maybe"}, "Parameter 'on' expects 'on' or 'off'"),
        ({"scale": "inf"}, "Invalid parameter type for 'scale', expected: number"),
        ({"on": {"x": "1"}}, "Parameters 'on.*' are unexpected"),
        ({"inks": "red"}, "Invalid parameter type for 'inks', expected: array"),
        ({"shapes": [{"kind": "line"}]}, "Parameter 'shapes.0.length' is missing"),
    ],
)
def test_keyval_refuses_in_qemus_words(given: Any, words: str) -> None:
    assert error(Pen, given, keyval=True) == words


# Profiles


@pytest.mark.parametrize(
    ("profile", "fits"),
    [
        ("4.2", {"old"}),
        ("5.2", {"old"}),
        ("6.2", {"new"}),
        ("7.2", {"new"}),
        ("all", {"new", "old"}),
    ],
)
def test_a_profile_knows_its_members_only(profile: str, fits: set[str]) -> None:
    known = Profile.parse(profile)
    for member in ("new", "old"):
        if member in fits:
            assert visit(Aged, {member: 1}, profile=known)
        else:
            assert error(Aged, {member: 1}, profile=known) == f"Parameter '{member}' is unexpected"
    assert set(dump(Aged(new=1, old=2), known)) == fits


def test_a_profile_knows_its_values_and_cases_only() -> None:
    old = Profile.parse("4.2")
    assert error(Shape, {"kind": "dot", "colour": "blue"}, profile=old) == (
        "Parameter 'colour' does not accept value 'blue'"
    )
    assert error(Shape, {"kind": "line", "length": 1}, profile=old) == (
        "Parameter 'kind' does not accept value 'line'"
    )


def test_policies_reject_and_hide() -> None:
    strict = Profile.parse(
        "all,deprecated-input=reject,deprecated-output=hide,unstable-input=reject"
    )
    with pytest.raises(Exception, match="Deprecated parameter old disabled by policy"):
        visit(Aged, {"old": 1}, profile=strict)
    with pytest.raises(Exception, match="Unstable parameter odd disabled by policy"):
        visit(Aged, {"odd": 1}, profile=strict)
    with pytest.raises(Exception, match="Deprecated value red disabled by policy"):
        visit(Shape, {"kind": "dot", "colour": "red"}, profile=strict)
    assert dump(Aged(old=1, odd=2), strict) == {"odd": 2}
    with pytest.raises(ValueError, match=r"unknown profile '3\.1'"):
        Profile.parse("3.1")
    with pytest.raises(ValueError, match="Parameter 'deprecated-input' does not accept value 'x'"):
        Profile.parse("7.2,deprecated-input=x")


# Instances


def test_structs_are_immutable_values() -> None:
    line = Line(length=1)
    with pytest.raises(AttributeError):
        line.length = 2  # type: ignore[misc]
    assert line == Line(length=1)
    assert hash(line) == hash(Line(length=1))
    assert replace(line, length=2) == Line(length=2)
    assert line != Line(length=2)
    assert repr(line) == "Line(colour=None, length=1, points=None, next=ABSENT)"
    with pytest.raises(TypeError, match="no value for member 'length'"):
        Line()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no member 'size'"):
        Line(length=1, size=2)  # type: ignore[call-arg]


def test_enums_are_strings() -> None:
    assert Colour("red") is Colour.RED
    assert Colour.RED == "red"
    assert [*Colour] == ["red", "blue"]
    assert Colour.RED.name == "RED"
    assert f"{Colour.RED}" == "red"
    assert "red" in Colour
    with pytest.raises(ValueError, match="'x' is not a valid Colour"):
        Colour("x")


def test_dump_leaves_out_what_is_absent_and_both_printers_agree() -> None:
    line = Line(length=3, colour=Colour.RED, next=None, points=[1, 2])
    plain = {"kind": "line", "colour": "red", "length": 3, "points": [1, 2], "next": None}
    assert dump(line) == plain
    assert text(line) == encode(plain)
    assert text([line, Dot(), {"a": Dot()}, 1.5, True]) == encode(
        [plain, {"kind": "dot"}, {"a": {"kind": "dot"}}, 1.5, True]
    )


def test_self_check_finds_output_that_does_not_fit() -> None:
    check(Shape, dump(Line(length=1)))
    check(None, {})
    with pytest.raises(SelfCheckError, match="'length'"):
        check(Shape, {"kind": "line", "length": "1"})
    with pytest.raises(SelfCheckError, match="uint64"):
        check(Pen, {"big": -1})
    with pytest.raises(SelfCheckError, match="nothing expected"):
        check(None, {"a": 1})
    assert ALL.knows(Line.life)
