"""What can be wrong with devices, in QEMU's words (softmmu/qdev-monitor.c, hw/core/qdev.c)."""

from blockemu.errors import QmpError


class UnknownDevice(QmpError):
    """There is no such type."""

    template = "'{}' is not a valid device model name"


class NoBus(QmpError):
    """Nothing to put it on: (kind of bus, type)."""

    template = "No '{}' bus found for device '{}'"


class BusNotFound(QmpError):
    """The bus that was named does not exist."""

    template = "Bus '{}' not found"


class BusFull(QmpError):
    """The bus that was named takes no more."""

    template = "Bus '{}' is full"


class WrongBus(QmpError):
    """(type, kind of bus)."""

    template = "Device '{}' can't go on {} bus"


class NoHotplug(QmpError):
    """The bus takes devices at the start only."""

    template = "Bus '{}' does not support hotplugging"


class NoDeviceHotplug(QmpError):
    """The machine's own device: (type)."""

    template = "Device '{}' does not support hotplugging"


class NoIothreads(QmpError):
    """The controller cannot follow the disk to its thread."""

    template = "HBA does not support iothreads"


class DuplicateDevice(QmpError):
    """The id is taken."""

    template = "Duplicate device ID '{}'"


class NoSuchProperty(QmpError):
    """(type, property)."""

    template = "Property '{}.{}' not found"


class NotAccepted(QmpError):
    """A value of an enumeration: (property, value)."""

    template = "Parameter '{}' does not accept value '{}'"


class DriveNotFound(QmpError):
    """Neither a drive nor a node has the name: (type, name)."""

    template = "Property '{}.drive' can't find value '{}'"


class DriveTaken(QmpError):
    """A drive serves one device."""

    template = "Drive '{}' is already in use by another device"


class DriveAutomatic(QmpError):
    """The drive has its device already."""

    template = (
        "Drive '{}' is already in use because it has been automatically connected to another "
        "device (did you need 'if=none' in the drive options?)"
    )


class NeedsMedium(QmpError):
    """A disk without a node."""

    template = "Device needs media, but drive is empty"


class NoChassis(QmpError):
    """A bridge whose slots could not be told from another's."""

    template = (
        "Bridge chassis not specified. Each bridge is required to be assigned a unique chassis "
        "id > 0."
    )


class BadSlot(QmpError):
    """A slot that a bridge's controller has not (shpc_device_plug_common): its number."""

    template = (
        "Unsupported PCI slot {} for standard hotplug controller. Valid slots are between 1 and 31."
    )


class Expects(QmpError):
    """A value that is not of the property's type: (property, type)."""

    template = "Parameter '{}' expects {}"


class NotADevice(QmpError):
    """The path leads to something else."""

    template = "{} is not a hotpluggable device"


class UnplugPending(QmpError):
    """The guest was asked before."""

    template = "Device {} is already in the process of unplug"


class NoBackend(QmpError):
    """The device has no drive."""

    template = "Device does not have a block device backend"
