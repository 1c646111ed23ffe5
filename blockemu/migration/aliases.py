"""Names of nodes and bitmaps in a stream, where the user has given them (construct_alias_map)."""

from collections.abc import Sequence
from typing import Final

from blockemu.dirty import MAX_NAME
from blockemu.errors import QmpError
from blockemu.optlist import is_identifier
from blockemu.schema.migration import BitmapMigrationBitmapAlias, BitmapMigrationNodeAlias

Named = tuple[str, bool | None]  # a bitmap's other name, and whether it is persistent there
Outgoing = dict[str, tuple[str, dict[str, Named]]]  # by names here
Incoming = dict[str, tuple[str, dict[str, Named]]]  # by names in the stream
_LONGEST: Final = 255
_LONGEST_NODE: Final = 31


class BadMapping(QmpError):
    """(why)."""

    template = "Invalid mapping given for block-bitmap-mapping: {}"


def outgoing(mapping: Sequence[BitmapMigrationNodeAlias]) -> Outgoing:
    """Return what names here are in the stream.

    Raises:
        BadMapping: a name is none, or mapped twice.

    """
    found: Outgoing = {}
    for node in mapping:
        _check_node(node)
        if node.node_name in found:
            raise BadMapping(f"The node name '{node.node_name}' is mapped twice")
        bitmaps: dict[str, Named] = {}
        found[node.node_name] = node.alias, bitmaps
        for bitmap in node.bitmaps:
            _check_bitmap(bitmap)
            if bitmap.name in bitmaps:
                raise BadMapping(f"The bitmap '{node.node_name}'/'{bitmap.name}' is mapped twice")
            bitmaps[bitmap.name] = bitmap.alias, _persistent(bitmap)
    return found


def incoming(mapping: Sequence[BitmapMigrationNodeAlias]) -> Incoming:
    """Return what names in the stream are here.

    Raises:
        BadMapping: a name is none, or used twice.

    """
    found: Incoming = {}
    for node in mapping:
        _check_node(node)
        if node.alias in found:
            raise BadMapping(f"The node alias '{node.alias}' is used twice")
        bitmaps: dict[str, Named] = {}
        found[node.alias] = node.node_name, bitmaps
        for bitmap in node.bitmaps:
            _check_bitmap(bitmap)
            if bitmap.alias in bitmaps:
                raise BadMapping(f"The bitmap alias '{node.alias}'/'{bitmap.alias}' is used twice")
            bitmaps[bitmap.alias] = bitmap.name, _persistent(bitmap)
    return found


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
