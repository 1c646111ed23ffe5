"""How older versions said what went wrong, where clients look at the text."""

import re
from typing import Final, NamedTuple

from blockemu.errors import PermissionConflict
from blockemu.qmp_server.profile import Profile, parse_version


class Rewording(NamedTuple):
    """A template, how it read before some version, and by which commands (empty: all)."""

    until: str
    now: str
    then: str
    commands: frozenset[str] = frozenset()


NO_NODE: Final = "Failed to find node with node-name='{}'"
TABLE: Final = (
    Rewording("6.2", "Parameter '{}' does not accept value '{}'", "Invalid parameter '{1}'"),
    Rewording(
        "6.0",
        "Cannot find device='{}' nor node-name='{}'",
        "Cannot find device={0} nor node_name={1}",
    ),
    Rewording("6.0", "Invalid node-name: '{}'", "Invalid node name"),
    Rewording("6.0", "Duplicate nodes with node-name='{}'", "Duplicate node name"),
    Rewording("6.0", "New overlay node-name missing", "New overlay node name missing"),
    Rewording(
        "6.0", "New overlay node-name already in use", "New overlay node name already in use"
    ),
    Rewording("6.0", "node-name not specified", "Node name not specified"),
    Rewording(
        "6.0",
        NO_NODE,
        "Cannot find node {0}",
        frozenset({"blockdev-del", "x-blockdev-set-iothread"}),
    ),
    Rewording("6.0", NO_NODE, "Cannot find node named '{0}'", frozenset({"x-blockdev-reopen"})),
    Rewording(
        "6.0",
        NO_NODE,
        "Node name '{0}' not found",
        frozenset({"drive-mirror", "blockdev-mirror"}),
    ),
)


def reword_error(profile: Profile, error: BaseException, command: str) -> str:
    """Return an error's text in the words of the profile's version; ``command`` has failed."""
    text, cause = str(error), _conflict(error)
    if cause is not None and profile.version is not None and profile.version < (6, 1):
        text = text.replace(str(cause), cause.earlier)
    return reword(profile, text, command)


def _conflict(error: BaseException | None) -> PermissionConflict | None:
    """Return the conflict of permissions that an error is, or came of."""
    while error is not None and not isinstance(error, PermissionConflict):
        error = error.__cause__ or error.__context__
    return error


def reword(profile: Profile, text: str, command: str = "") -> str:
    """Put a text of today, which may end a longer one, into the words of the profile's version.

    ``command`` is what failed, empty if it was none.
    """
    for row in TABLE:
        if profile.version is None or profile.version >= parse_version(row.until):
            continue
        if row.commands and command not in row.commands:
            continue
        found = re.search(f"(^|: ){_pattern(row.now)}$", text, re.DOTALL)
        if found is not None:
            values = found.groups()[1:]
            return text[: found.start()] + found.group(1) + row.then.format(*values)
    return text


def _pattern(template: str) -> str:
    return "(.*?)".join(re.escape(part) for part in template.split("{}"))
