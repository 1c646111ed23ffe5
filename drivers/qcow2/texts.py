"""Options of qcow2 that came as text, in so far as QEMU words errors about them in its own way."""

from typing import Any, Final

from blockemu.drivers.qcow2.options import Qcow2OverlapCheckMode
from blockemu.errors import QmpError
from blockemu.qmp_server.qenum import enum_values

OPTION: Final = "overlap-check"
TEMPLATE: Final = "overlap-check.template"
WHOLE_CACHE: Final = "cache-size"
PART_CACHES: Final = ("l2-cache-size", "refcount-cache-size")


class BadOverlapCheck(QmpError):
    """(value, option, what would do)."""

    template = "Unsupported value '{}' for qcow2 option '{}'. Allowed are any of the following: {}"


class OverlapCheckConflict(QmpError):
    """(option, value, the other option, its value): both say what is to be checked."""

    template = "Conflicting values for qcow2 options '{}' ('{}') and '{}' ('{}')"


def check_overlap_texts(options: dict[str, Any]) -> None:
    """Check ``overlap-check``, which may be a mode or have one as its template, or both.

    After qcow2_update_options_prepare, block/qcow2.c.

    Raises:
        QmpError: it is no mode, or they are two.

    """
    mode, flags = options.get(OPTION), {}
    if isinstance(mode, dict):
        flags = mode
        mode = flags.pop("", None)  # both were given: the plain one stands under no name
    template = flags.get("template")
    if mode is not None and template is not None and mode != template:
        raise OverlapCheckConflict(OPTION, mode, TEMPLATE, template)
    allowed = list(enum_values(Qcow2OverlapCheckMode))
    for value in (mode, template):
        if isinstance(value, str) and value not in allowed:
            raise BadOverlapCheck(value, OPTION, ", ".join(allowed))


def join(options: dict[str, Any], old: dict[str, Any]) -> None:
    """Add old options to new ones, flat both, but not what the new ones contradict.

    After qcow2_join_options, block/qcow2.c.
    """
    old = dict(old)
    if OPTION in options or TEMPLATE in options:
        for name in [name for name in old if name == OPTION or name.startswith(f"{OPTION}.")]:
            del old[name]
    whole_is_new = WHOLE_CACHE in options
    if whole_is_new:
        for name in PART_CACHES:
            old.pop(name, None)
    for name, value in old.items():
        options.setdefault(name, value)
    if not whole_is_new and all(name in options for name in (WHOLE_CACHE, *PART_CACHES)):
        del options[WHOLE_CACHE]
