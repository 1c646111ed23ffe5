"""All types of objects: their names, parents, interfaces and properties are QEMU's."""

import json

import pytest
from compat.test_blockemu_qemu import OURS, REAL, conversation

from blockemu.machine.type_facts import device_facts, known_types

NONE = ["-machine", "none", "-nodefaults", "-display", "none", "-monitor", "none", "-S"]
# QEMU does not survive questions about these, or about what needs a display of the host.
DEADLY = {
    *("microvm-machine", "x-remote-object", "qio-net-listener", "colo-compare"),
    *("chardev-parallel", "filter-dump", "virtio-gpu-gl-pci", "virtio-vga-gl"),
}
NAMES = [name for name in known_types() if name not in DEADLY]
ALL = 'qom-list-types {"abstract": true}'


@pytest.fixture
def folder(tmp_path, program):
    program("qemu-system-x86_64")
    return tmp_path


def answers(program, folder, commands):
    said, _ = conversation(program, [], folder, [ALL, *commands], NONE)
    return [json.loads(line) for line in said if line.startswith(('{"return": ', '{"error": '))]


def ordered(answer):
    rows = answer.get("return")
    types = isinstance(rows, list) and rows and "type" not in rows[0]
    return sorted(map(str, rows)) if types else answer


def same(folder, commands, refused):
    """Compare answers, and count those that are no lists."""
    mine, theirs = (answers(program, folder, commands) for program in (OURS, REAL))
    assert len(mine) == len(theirs) >= len(commands)
    assert mine[0] == theirs[0]  # later on QEMU has loaded modules, and lists in another order
    for one, other in zip(mine, theirs, strict=True):
        assert ordered(one) == ordered(other)
    assert sum("error" in each for each in theirs) in refused


def test_all_types_are_listed_with_their_parents_in_the_same_order(folder):
    commands = ["qom-list-types", 'qom-list-types {"abstract": false}']
    same(folder, commands, range(1))
    assert len(NAMES) > 700


def test_what_derives_from_a_type_or_implements_it_is_the_same(folder):
    of_interest = [name for name, known in known_types().items() if known.abstract]
    of_interest += ["pci-device", "user-creatable", "absent", "scsi-hd", "PCI", "object"]
    commands = [
        f'qom-list-types {{"implements": "{name}", "abstract": {word}}}'
        for name in of_interest
        for word in ("true", "false")
    ]
    same(folder, commands, range(1))


@pytest.mark.parametrize("part", range(4))
def test_the_properties_of_all_objects_of_a_type_are_the_same(folder, part):
    names = [*NAMES[part::4], "absent"]
    same(folder, [f'qom-list-properties {{"typename": "{n}"}}' for n in names], range(1, 20))


@pytest.mark.parametrize("part", range(4))
def test_the_properties_that_devices_of_a_type_take_are_the_same(folder, part):
    names = [*NAMES[part::4], "absent"]
    same(
        folder,
        [f'device-list-properties {{"typename": "{n}"}}' for n in names],
        range(20, len(names)),
    )


def test_what_is_known_of_devices_is_of_types_that_there_are():
    assert device_facts().keys() <= known_types().keys()
