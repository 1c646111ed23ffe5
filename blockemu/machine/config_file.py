"""``-readconfig`` and ``-set``: options from a file, and changes to those that were given.

After qemu_config_foreach, util/qemu-config.c, and qemu_set_option, softmmu/vl.c.
"""

import os
import re
from collections.abc import Iterable, Iterator
from typing import Final

from blockemu.arguments import Option, UsageError
from blockemu.chardev_options import OPTIONS
from blockemu.optlist import parse_any

_NAMES: Final = """
accel acpi action add-fd chardev device drive fsdev fw_cfg global icount machine mon msg name net
netdev nic numa object option-rom overcommit rtc sandbox semihosting-config smbios tpmdev trace
virtfs
"""
_RENAMED: Final = {"memory": "m", "smp-opts": "smp", "boot-opts": "boot"}
_GROUPS: Final = {name: name for name in _NAMES.split()} | _RENAMED
_FIXED: Final = frozenset(
    {"object", "machine", "smp-opts", "boot-opts"}
)  # -set does not reach them
_HEADER: Final = re.compile(r'\[(?:([^\s]{1,63}) *"([^"]{1,63})"\]?|([^\]]{1,63})\])')
_WORD: Final = re.compile(r"\s*(\S{1,63})")
_VALUE: Final = re.compile(r'\s*=\s*"([^"]{1,1023})')


def expand(options: Iterable[Option]) -> list[Option]:
    """Return the options with those of files in place of ``-readconfig``, and changes made.

    Raises:
        UsageError: a file cannot be read or understood, or there is nothing to change.

    """
    done: list[Option] = []
    for option in options:
        if option.name == "readconfig":
            done += _read(option)
        elif option.name == "set":
            _change(done, option)
        else:
            done.append(option)
    return done


def _read(option: Option) -> Iterator[Option]:
    """Yield the options of a file; each stands where its last line does."""
    name = option.value
    try:
        with open(name, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
            lines = file.read().splitlines()
    except OSError as e:
        text = os.strerror(e.errno or 0)
        raise UsageError(f"{option.where}: Could not open '{name}': {text}") from e
    group, parts, where = "", [""], ""
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        header = _HEADER.match(line)
        if header is not None:
            yield from _option(group, parts, where)
            group = header[1] or header[3]
            parts = [_part("id", header[2])] if header[2] else []
            continue
        where = f":{name}:{number}"
        word = _WORD.match(line)
        if word is None:
            raise UsageError(f"{where}: parse error")
        if not group:
            raise UsageError(f"{where}: no group defined")
        value = _VALUE.match(line, word.end())
        parts.append(_part(word[1], value[1] if value else ""))
    yield from _option(group, parts, where)


def _part(key: str, value: str) -> str:
    return f"{key}={value.replace(',', ',,')}"


def _option(group: str, parts: list[str], where: str) -> Iterator[Option]:
    if not group:
        return
    if group not in _GROUPS:
        raise UsageError(f"{where}: There is no option group '{group}'")
    yield Option(_GROUPS[group], ",".join(parts), where)


def _change(done: list[Option], option: Option) -> None:
    """Give an option that came before another value."""
    found = re.match(r"([^.]{1,63})\.([^.]{1,63})\.([^=]{1,63})=(.*)", option.value, re.DOTALL)
    if found is None:
        raise UsageError(f'{option.where}: can\'t parse: "{option.value}"')
    group, id_, key, value = found.groups()
    if group in _FIXED:
        raise UsageError(f"{option.where}: -set is not supported with {group}")
    if group not in _GROUPS:
        raise UsageError(f"{option.where}: There is no option group '{group}'")
    for i, each in enumerate(done):
        if group == "chardev" and key not in OPTIONS:
            raise UsageError(f"{option.where}: Invalid parameter '{key}'")
        if each.name == _GROUPS[group] and _id(each.value) == id_:
            done[i] = each._replace(value=f"{each.value},{_part(key, value)}")
            return
    raise UsageError(f'{option.where}: there is no {group} "{id_}" defined')


def _id(value: str) -> str | None:
    return None if value.startswith("{") else parse_any(value, lambda text: None).get("id")
