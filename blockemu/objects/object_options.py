"""The argument of ``--object``: JSON or ``key=value,...``, or a wish for help."""

from blockemu.objects.object_add import NoSuchType, Objects
from blockemu.objects.qom import class_properties
from blockemu.qmp_server.keyval import parse_json, parse_keyval
from blockemu.qmp_server.profile import Profile
from blockemu.qmp_server.qapi import visit
from blockemu.schema.objects import ObjectOptions, ObjectProperties

TOOLS_LACK = frozenset({"iothread"})  # image tools have one thread for all


class ObjectHelp(Exception):
    """Help was asked for; the text is what to print."""


def parse_object(
    text: str, profile: Profile, *, lacking: frozenset[str] = frozenset()
) -> ObjectProperties:
    """Return what is to be added; ``lacking`` are types that the program has no use for.

    Raises:
        NoSuchType: it is of one of these.
        ObjectHelp: nothing is.
        ProtocolError: the text is neither JSON nor keys and values, or describes no object.

    """
    if text.startswith("{"):
        given, keyval = parse_json(text), False
    else:
        given, wants_help = parse_keyval(text, "qom-type", help_ok=True)
        keyval = True
        name = given.get("qom-type", "")
        if wants_help and (not name or Objects.type_of(name)):
            raise ObjectHelp(_help(name, lacking))
    if isinstance(kind := given.get("qom-type"), str):
        Objects.type_of(kind)  # declares its options, if it is imported only now
    options = visit(ObjectOptions, given, keyval=keyval, profile=profile)
    assert isinstance(options, ObjectProperties)
    if options.tag in lacking:
        raise NoSuchType(options.tag)
    return options


def _help(name: str, lacking: frozenset[str]) -> str:
    cls = Objects.type_of(name)
    if cls is None:
        rows = [f"  {name}" for name in Objects.names() if name not in lacking]
        return "\n".join(["List of user creatable objects:", *rows])
    rows = sorted(f"  {p.name}=<{p.type}>" for p in class_properties(cls).values() if p.write)
    return "\n".join([f"{cls.TYPE} options:", *rows])
