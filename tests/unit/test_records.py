"""Records are declared and behave as dataclasses do, without their price at import."""

import inspect
from typing import ClassVar

import pytest

from blockemu.records import field, record, replace


@record
class Open:
    """Members that change."""

    KIND: ClassVar[str] = "open"
    name: str
    size: int = 512
    notes: list[str] = field(default_factory=list)
    later: int = field(init=False)

    def double(self) -> int:
        return self.size * 2


@record(frozen=True)
class Fixed:
    a: int
    b: str = "b"


@record(frozen=True, kw_only=True, eq=False)
class Named:
    a: int
    b: int


@record(frozen=True)
class Nothing:
    pass


@record
class Named2:
    value: int = 0

    def __repr__(self) -> str:
        return "mine"

    def __eq__(self, other: object) -> bool:
        return True


def test_members_are_arguments_in_order_with_their_defaults():
    one = Open("one")
    assert (one.name, one.size, one.notes, one.double(), one.KIND) == ("one", 512, [], 1024, "open")
    two = Open("two", 1, ["x"])
    assert (two.name, two.size, two.notes) == ("two", 1, ["x"])
    assert (Fixed(1).b, Fixed(1, "c").b, Fixed(b="d", a=2).b) == ("b", "c", "d")


def test_a_factory_makes_a_value_for_each_record():
    assert Open("one").notes is not Open("two").notes


def test_a_member_that_is_set_later_is_no_argument():
    one = Open("one")
    assert not hasattr(one, "later")
    one.later = 1
    assert one.later == 1
    with pytest.raises(TypeError):
        Open("one", later=1)


@pytest.mark.parametrize(
    ("args", "named"),
    [((), {}), ((1, "b", "c"), {}), ((1,), {"a": 1}), ((1,), {"odd": 1})],
)
def test_wrong_arguments_are_refused_by_the_name_of_the_record(args, named):
    with pytest.raises(TypeError, match=r"Fixed\.__init__\(\)"):
        Fixed(*args, **named)


def test_members_given_by_name_only():
    with pytest.raises(TypeError):
        Named(1, 2)
    assert Named(b=2, a=1).a == 1


def test_only_members_can_be_set():
    one = Open("one")
    one.size = 1
    assert one.size == 1
    with pytest.raises(AttributeError):
        one.sice = 1


def test_a_frozen_record_keeps_its_members():
    one = Fixed(1)
    with pytest.raises(AttributeError, match="cannot change 'a' of a Fixed"):
        one.a = 2
    with pytest.raises(AttributeError):
        del one.a
    with pytest.raises(AttributeError):
        one.c = 2
    assert one.a == 1


def test_equal_members_make_equal_records():
    assert Fixed(1) == Fixed(1, "b")
    assert Fixed(1) != Fixed(2)
    assert Fixed(1) != (1, "b")
    assert len({Fixed(1), Fixed(1), Fixed(2)}) == 2
    first, second = Open("x"), Open("x")
    first.later = second.later = 1
    assert first == second
    with pytest.raises(TypeError):
        hash(first)


def test_without_eq_a_record_equals_itself_only():
    one = Named(a=1, b=2)
    assert one == one
    assert one != Named(a=1, b=2)
    assert len({one, Named(a=1, b=2)}) == 2


def test_what_a_class_defines_itself_stays():
    assert repr(Named2()) == "mine"
    assert Named2(1) == Named2(2)


def test_a_record_may_have_no_members():
    assert Nothing() == Nothing()
    assert len({Nothing(), Nothing()}) == 1
    assert repr(Nothing()) == "Nothing()"
    with pytest.raises(TypeError):
        Nothing(1)


def test_a_record_shows_its_members():
    assert repr(Fixed(1)) == "Fixed(a=1, b='b')"
    assert repr(Open("one")) == "Open(name='one', size=512, notes=[], later=...)"


def test_replace_changes_some_members():
    assert replace(Fixed(1), b="c") == Fixed(1, "c")
    with pytest.raises(TypeError):
        replace(Fixed(1), odd=1)


def test_records_match_by_position_and_name():
    match Fixed(1):
        case Fixed(a, b="b"):
            assert a == 1
        case _:
            pytest.fail("no match")


def test_nothing_is_compiled_before_there_is_an_instance():
    @record
    class Late:
        value: int = 7

    before = Late.__init__
    assert list(inspect.signature(before).parameters) == ["self", "args", "kwargs"]
    assert Late().value == 7
    assert list(inspect.signature(Late.__init__).parameters) == ["self", "value"]
    assert Fixed.__doc__ is None
    assert Open.__doc__ == "Members that change."


def test_a_class_below_a_record_is_made_as_it_is():
    @record
    class Base:
        value: int

    class Below(Base):
        def twice(self) -> int:
            return self.value * 2

    assert Below(2).twice() == 4
    assert Base(3).value == 3
