"""The object tree, the objects in it, and sets of descriptors."""

import os

import pytest

from blockemu.clocks import SteppedClock
from blockemu.hashorder import HashOrder, string_hash
from blockemu.host.fdsets import CannotDuplicate, FdSets
from blockemu.objects.object_add import BadBase64, NotASecret, Objects, decode_base64
from blockemu.objects.qom import AmbiguousPath, Container, NoSuchObject, NotWritable, Tree
from blockemu.qmp_server.qapi import visit
from blockemu.schema.objects import ObjectOptions
from blockemu.throttling.group import Member


def test_strings_hash_as_in_glib():
    assert string_hash("") == 5381
    assert string_hash("a") == 177670
    assert string_hash("\xe9") == ((5381 * 33 + 0xC3 - 256) * 33 + 0xA9 - 256) & 0xFFFFFFFF


def test_keys_come_in_glibs_order():
    # as the real daemon listed the same objects
    assert list(HashOrder("s0", "s1", "io0", "io1", "tg0", "tg1"))[::-1] == [
        "io0", "tg1", "s0", "io1", "tg0", "s1",
    ]  # fmt: skip


def test_a_removed_key_is_gone_and_its_place_is_used_again():
    order = HashOrder("a", "b")
    order.remove("a")
    assert list(order) == ["b"]
    order.add("a")
    assert sorted(order) == ["a", "b"]


@pytest.fixture
def tree():
    tree = Tree()
    tree.container("one").add_child("x", Container())
    tree.container("two").add_child("x", Container())
    tree.container("two").add_child("y", Container())
    return tree


@pytest.mark.parametrize("path", ["/two/y", "two/y", "y", "//two//y", "/two/y/"])
def test_an_object_is_found_by_its_path_or_the_end_of_it(tree, path):
    assert tree.resolve(path).path == "/two/y"


def test_a_path_that_fits_two_objects_fits_none(tree):
    with pytest.raises(NoSuchObject):
        tree.resolve("x")
    with pytest.raises(AmbiguousPath):
        tree.resolve("x", explain=True)


def test_a_child_is_a_property_that_cannot_be_set(tree):
    one = tree.resolve("/one")
    assert one.get("x") == "/one/x"
    with pytest.raises(NotWritable):
        one.writable("x")


@pytest.fixture
def objects():
    return Objects(Tree(), SteppedClock())


def options(kind, **members):
    return visit(ObjectOptions, {"qom-type": kind, "id": "o"} | members)


@pytest.mark.parametrize(
    ("members", "content"),
    [
        ({"data": "abc"}, b"abc"),
        ({"data": "\xe9"}, b"\xc3\xa9"),
        ({"data": "YWJj", "format": "base64"}, b"abc"),
    ],
)
def test_a_secret_is_decoded(objects, members, content):
    objects.add(options("secret", **members))
    assert objects.secret("o") == content


def test_only_a_secret_has_a_secret(objects):
    objects.add(options("iothread"))
    with pytest.raises(NotASecret):
        objects.secret("o")


@pytest.mark.parametrize(
    ("text", "data"),
    [("YWJj", b"abc"), ("YW\nJj\n", b"abc"), ("YQ==", b"a"), ("YQ", b""), ("YWJjYQ", b"abc"), ("YQ=Y", b"a\x18")],
)  # fmt: skip
def test_base64_is_read_as_glib_reads_it(text, data):
    assert decode_base64(text.encode()) == data


def test_base64_has_its_characters_only():
    with pytest.raises(BadBase64):
        decode_base64(b"YW J")


def test_a_group_tells_when_its_limits_change(objects):
    objects.add(options("throttle-group", limits={"iops-total": 5}))
    group = objects.find("o")
    told = []
    member = Member(group, lambda: told.append(group.config.values["iops-total"]))
    limits = group.writable("limits")
    limits.write(group, visit(limits.hint, {"iops-total": 9}))
    assert told == [9]
    member.leave()


# Sets of descriptors


@pytest.fixture
def null():
    return os.open(os.devnull, os.O_RDONLY)


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_descriptor_is_duplicated_for_its_access_mode_only(null):
    sets = FdSets()
    sets.monitors = 1
    number = sets.add(null).number
    with pytest.raises(CannotDuplicate, match=f"/dev/fdset/{number} flags 2: Permission denied"):
        sets.dup(f"/dev/fdset/{number}", os.O_RDWR)
    fd = sets.dup(f"/dev/fdset/{number}", os.O_RDONLY)
    assert fd != null
    sets.close(fd)
    sets.close_all()
    assert not is_open(null)


def test_a_set_goes_with_the_last_monitor_unless_it_is_used(null):
    sets = FdSets()
    sets.monitors = 1
    sets.add(null, 7)
    fd = sets.dup("/dev/fdset/7", os.O_RDONLY)
    sets.monitor_gone()
    assert is_open(null)
    sets.close(fd)
    assert not is_open(null)
    assert list(sets) == []


def test_a_removed_descriptor_stays_away_while_its_set_is_used(null):
    sets = FdSets()
    sets.monitors = 1
    sets.add(null, 7)
    fd = sets.dup("/dev/fdset/7", os.O_RDONLY)
    sets.remove(7)
    assert not is_open(null)
    assert [fdset.members for fdset in sets] == [[]]
    sets.close(fd)
    assert list(sets) == []
