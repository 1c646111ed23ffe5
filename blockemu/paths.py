"""File names as QEMU reads them: a protocol before the first colon, a path after it."""

SEPARATOR = "/"


def has_protocol(name: str) -> bool:
    """Tell whether a name begins with ``protocol:`` (path_has_protocol, block.c)."""
    return ":" in name.partition(SEPARATOR)[0]


def is_absolute(name: str) -> bool:
    """Tell whether a name stays the same wherever it is used from."""
    return name.startswith(SEPARATOR)


def combine(base: str, name: str) -> str:
    """Return ``name`` as seen from the folder of ``base``; either may have a protocol.

    After path_combine, block.c: whatever follows the last slash of ``base`` goes, but never its
    protocol.
    """
    if is_absolute(name):
        return name
    protocol = base.index(":") + 1 if has_protocol(base) else 0
    return base[: max(base.rfind(SEPARATOR) + 1, protocol)] + name


def strip_protocol(name: str, prefix: str) -> str:
    """Return a name without a redundant ``prefix:``, still read as the same path.

    A colon in what is left would be taken for a protocol, hence the ``./``.
    """
    if not name.startswith(prefix):
        return name
    rest = name.removeprefix(prefix)
    return f"./{rest}" if has_protocol(rest) else rest
