"""What ``-device help`` and ``-drive format=help`` print."""

from typing import Final

from blockemu.machine.types import BY_NAME, TYPES, DeviceType

_INNER: Final = ("virtio-blk-device", "virtio-scsi-device")


def describe_devices(text: str) -> str:
    """List the types of devices, or the properties of one."""
    name = text.split(",")[0].removeprefix("driver=")
    model = BY_NAME.get(name)
    if model is not None:
        rows = sorted(f"  {key}=<{kind}>" for key, kind in model.properties.items())
        return "\n".join([f"{model.name} options:", *rows]) + "\n"
    rows = [_row(each) for each in TYPES if each.makes != "PCI"]
    rows += [f'name "{x}", bus virtio-bus' for x in _INNER]
    bridges = [_row(each) for each in TYPES if each.makes == "PCI"]
    parts = (("Controller/Bridge/Hub devices:", bridges), ("Storage devices:", rows))
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
