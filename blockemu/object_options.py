"""The argument of ``--object``: JSON or ``key=value,...``, or a wish for help."""

from blockemu.errors import InvalidParameterValue
from blockemu.objects import Objects
from blockemu.optlist import IDENTIFIER_HINT, is_identifier
from blockemu.qmp_server.keyval import parse_json, parse_keyval
from blockemu.qmp_server.profile import Profile
from blockemu.qmp_server.qapi import visit
from blockemu.qom import class_properties
from blockemu.schema.objects import ObjectOptions

__all__ = ["ObjectHelp", "parse_object"]


class ObjectHelp(Exception):
    """Help was asked for; the text is what to print."""


def parse_object(text: str, profile: Profile) -> ObjectOptions:
    """Return what is to be added.

    Raises:
        ObjectHelp: nothing is.
        QmpError: the options do not describe an object.
        ProtocolError: the text is neither JSON nor keys and values.

    """
    if text.startswith("{"):
        return visit(ObjectOptions, parse_json(text), profile=profile)
    given, wants_help = parse_keyval(text, "qom-type", help_ok=True)
    if wants_help:
        raise ObjectHelp(_help(given.get("qom-type", "")))
    return visit(ObjectOptions, given, keyval=True, profile=profile)


def _help(name: str) -> str:
    cls = Objects.TYPES.get(name)
    if cls is None:
        return "\n".join(["List of user creatable objects:", *(f"  {n}" for n in sorted(Objects.TYPES))])
    rows = sorted(f"  {p.name}=<{p.type}>" for p in class_properties(cls).values() if p.write)
    return "\n".join([f"{cls.TYPE} options:", *rows])
