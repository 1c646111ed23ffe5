"""What ``-device help`` and ``-drive format=help`` print."""

import json

from blockemu.machine.type_facts import taken_by
from blockemu.machine.types import BLK_INNER, BY_NAME, SCSI_INNER, TYPES, DeviceType
from blockemu.qmp_server.qapi import ABSENT


def describe_devices(text: str) -> str:
    """List the types of devices, or the properties of one."""
    name = text.split(",")[0].removeprefix("driver=")
    model = BY_NAME.get(name)
    if model is not None:
        return f"{model.name} options:\n" + "".join(f"{row}\n" for row in _options(model))
    storage = [_row(each) for each in TYPES if each.makes != "PCI"]
    storage += [_row(each) for each in (BLK_INNER, SCSI_INNER)]
    bridges = [_row(each) for each in TYPES if each.makes == "PCI"]
    parts = (("Controller/Bridge/Hub devices:", bridges), ("Storage devices:", storage))
    return "\n\n".join("\n".join([title, *sorted(rows)]) for title, rows in parts) + "\n"


def _row(each: DeviceType) -> str:
    row = f'name "{each.name}", bus {each.bus}'
    if each.alias:
        row += f', alias "{each.alias}"'
    return row + (f', desc "{each.description}"' if each.description else "")


def describe_formats() -> str:
    """List the block drivers."""
    from blockemu.drivers import load_drivers

    names = " ".join(sorted(load_drivers()))
    return f"Supported formats: {names}\nSupported formats (read-only): {names}\n"


def _options(model: DeviceType) -> list[str]:
    """Describe the properties that a type takes (qdev_device_help, object_property_help)."""
    rows = []
    for each in taken_by(model.name):
        row = f"  {each.name}=<{each.type}>"
        described = each.description is not None or each.default is not ABSENT
        if described:
            row = f"{row:<24} - {each.description or ''}"
        if each.default is not ABSENT:
            row += f" (default: {json.dumps(each.default)})"
        rows.append(row)
    return sorted(rows)
