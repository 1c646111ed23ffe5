"""Names of nodes and bitmaps in a stream, where the user has given them (construct_alias_map)."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from blockemu.dirty import MAX_NAME
from blockemu.errors import QmpError
from blockemu.optlist import is_identifier
from blockemu.schema.migration import BitmapMigrationBitmapAlias, BitmapMigrationNodeAlias

Named = tuple[str, bool | None]  # a bitmap's other name, and whether it is persistent there
Map = dict[str, tuple[str, dict[str, Named]]]  # nodes by name or alias, and their bitmaps
_LONGEST: Final = 255
_LONGEST_NODE: Final = 31


class BadMapping(QmpError):
    """(why)."""

    template = "Invalid mapping given for block-bitmap-mapping: {}"


class Side(NamedTuple):
    """Which names a map is by, in the words of what is wrong with them."""

    node: str
    bitmap: str
    twice: str


_HERE: Final = Side("node name", "bitmap", "is mapped twice")
_THERE: Final = Side("node alias", "bitmap alias", "is used twice")


def outgoing(mapping: Sequence[BitmapMigrationNodeAlias]) -> Map:
    """Return what names here are in the stream.

    Raises:
        BadMapping: a name is none, or mapped twice.

    """
    return _map(mapping, _HERE)


def incoming(mapping: Sequence[BitmapMigrationNodeAlias]) -> Map:
    """Return what names in the stream are here.

    Raises:
        BadMapping: a name is none, or used twice.

    """
    return _map(mapping, _THERE)


def _map(mapping: Sequence[BitmapMigrationNodeAlias], side: Side) -> Map:
    found: Map = {}
    for node in mapping:
        _check_node(node)
        key, value = _ordered(node.node_name, node.alias, side)
        if key in found:
            raise BadMapping(f"The {side.node} '{key}' {side.twice}")
        bitmaps: dict[str, Named] = {}
        found[key] = value, bitmaps
        for bitmap in node.bitmaps:
            _check_bitmap(bitmap)
            name, other = _ordered(bitmap.name, bitmap.alias, side)
            if name in bitmaps:
                raise BadMapping(f"The {side.bitmap} '{key}'/'{name}' {side.twice}")
            bitmaps[name] = other, _persistent(bitmap)
    return found


def _ordered(name: str, alias: str, side: Side) -> tuple[str, str]:
    return (name, alias) if side is _HERE else (alias, name)


def _check_node(node: BitmapMigrationNodeAlias) -> None:
    if not is_identifier(node.alias):
        raise BadMapping(f"The node alias '{node.alias}' is not well-formed")
    if _size(node.alias) > _LONGEST:
        raise BadMapping(f"The node alias '{node.alias}' is longer than {_LONGEST} bytes")
    if _size(node.node_name) > _LONGEST_NODE:
        raise BadMapping(f"The node name '{node.node_name}' is longer than {_LONGEST_NODE} bytes")


def _check_bitmap(bitmap: BitmapMigrationBitmapAlias) -> None:
    if _size(bitmap.alias) > _LONGEST:
        raise BadMapping(f"The bitmap alias '{bitmap.alias}' is longer than {_LONGEST} bytes")
    if _size(bitmap.name) > MAX_NAME:
        raise BadMapping(f"The bitmap name '{bitmap.name}' is longer than {MAX_NAME} bytes")


def _persistent(bitmap: BitmapMigrationBitmapAlias) -> bool | None:
    return bitmap.transform.persistent if bitmap.transform is not None else None


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))
