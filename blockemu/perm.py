"""Permissions and roles of edges (include/block/block-common.h explains each bit)."""

from enum import Flag, auto


class Perm(Flag):
    """What a parent may do to a child, and what it lets others do."""

    NONE = 0
    CONSISTENT_READ = auto()
    WRITE = auto()
    WRITE_UNCHANGED = auto()
    RESIZE = auto()
    ALL = CONSISTENT_READ | WRITE | WRITE_UNCHANGED | RESIZE
    WRITES = WRITE | WRITE_UNCHANGED


class Role(Flag):
    """What a child is to its parent."""

    NONE = 0
    DATA = auto()
    METADATA = auto()
    FILTERED = auto()
    COW = auto()
    PRIMARY = auto()
    IMAGE = DATA | METADATA | PRIMARY


_NAMES = {
    Perm.CONSISTENT_READ: "consistent read",
    Perm.WRITE: "write",
    Perm.WRITE_UNCHANGED: "write unchanged",
    Perm.RESIZE: "resize",
}
_API_NAMES = {perm: name.replace(" ", "-") for perm, name in _NAMES.items()}


def perm_names(perm: Perm) -> str:
    """Return the permissions as error texts list them (after bdrv_perm_names, block.c)."""
    return ", ".join(name for bit, name in _NAMES.items() if bit in perm)


def api_perm_names(perm: Perm) -> list[str]:
    """Return the permissions as BlockPermission values."""
    return [name for bit, name in _API_NAMES.items() if bit in perm]


def default_child_perm(
    role: Role, perm: Perm, shared: Perm, *, writable: bool, inactive: bool = False
) -> tuple[Perm, Perm]:
    """Return what a node needs of a child and shares on it, given what its own parents want.

    ``writable``: whether the node itself is.  After bdrv_default_perms, block.c: filters pass all
    on, backing children are only read, children that hold an image belong to their format.
    """
    if Role.FILTERED in role:
        return perm, shared
    more = Perm.WRITE | Perm.RESIZE
    if Role.COW in role:
        base = Perm.CONSISTENT_READ | Perm.WRITE_UNCHANGED
        loose = Perm.WRITE in shared or inactive
        return perm & Perm.CONSISTENT_READ, base | (more if loose else Perm.NONE)
    if Role.METADATA in role:
        perm |= Perm.CONSISTENT_READ | (more if writable else Perm.NONE)
        shared &= ~more
    if Role.DATA in role:
        shared &= ~Perm.RESIZE
        if Perm.WRITE_UNCHANGED in perm:
            perm |= Perm.WRITE
        if Perm.WRITE in perm:
            perm |= Perm.RESIZE
    if inactive:
        shared |= more
    return perm, shared
