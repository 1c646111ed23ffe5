"""What devices will not have when they come to life, in QEMU's words.

After hw/pci/pci.c, hw/scsi/scsi-bus.c, hw/ide/qdev.c, hw/block/fdc.c, hw/block/block.c,
hw/block/virtio-blk.c, hw/scsi/virtio-scsi.c, hw/virtio/virtio-pci.c.
"""

from blockemu.errors import QmpError


class NoSlot(QmpError):
    """The bus has no slot left: (type)."""

    template = "PCI: no slot/function available for {}, all in use or reserved"


class SlotTaken(QmpError):
    """(slot, function, type, the other's type and id)."""

    template = "PCI: slot {} function {} not available for {}, in use by {},id={}"


class FunctionHidden(QmpError):
    """A guest looks for other functions only when it finds the first: (slot, its type, type)."""

    template = (
        "PCI: slot {} function 0 already occupied by {}, new func {} cannot be exposed to guest."
    )


class BadAcpiIndex(QmpError):
    """(the greatest)."""

    template = "acpi-index should be less or equal to {}"


class BadScsiNumber(QmpError):
    """(what, number)."""

    template = "bad scsi {}: {}"


class LunTaken(QmpError):
    """(id of the device that has it)."""

    template = "lun already used by '{}'"


class NoFreeTarget(QmpError):
    """All ids are taken."""

    template = "no free target"


class NoFreeLun(QmpError):
    """All logical units of the id are taken."""

    template = "no free lun"


class TooFewUnits(QmpError):
    """(kind of bus, unit, how many it has)."""

    template = "Can't create {} unit {}, bus supports only {} units"


class IdeUnitTaken(QmpError):
    """(unit)."""

    template = "IDE unit {} is in use"


class FloppyUnitTaken(QmpError):
    """(unit)."""

    template = "Floppy unit {} is in use"


class NoMode(QmpError):
    """Neither the old virtio nor the new one."""

    template = "device cannot work as neither modern nor legacy mode is enabled"


class BadScsiQueues(QmpError):
    """(how many, the greatest)."""

    template = "Invalid number of queues (= {}), must be a positive integer less than {}."


class ShortScsiQueue(QmpError):
    """(length)."""

    template = "invalid virtqueue_size property (= {}), must be > 2"


class NoQueues(QmpError):
    """A disk that nothing can be asked of."""

    template = "num-queues property must be larger than 0"


class ShortQueue(QmpError):
    """(length)."""

    template = "invalid queue-size property ({}), must be > 2"


class OddQueue(QmpError):
    """(length, the greatest)."""

    template = "invalid queue-size property ({}), must be a power of 2 (max {})"


class BadMostSectors(QmpError):
    """(property, sectors, the greatest)."""

    template = "invalid {} property ({}), must be between 1 and {}"


class IdeBlocks(QmpError):
    """IDE knows no others."""

    template = "logical_block_size must be 512 for IDE"


class IdeDiscard(QmpError):
    """IDE knows no others."""

    template = "discard_granularity must be 512 for ide"


class FloppyBlocks(QmpError):
    """Floppies have no others."""

    template = "Physical and logical block size must be 512 for floppy"


class BlocksTooBig(QmpError):
    """A block would lie in several of the disk's own."""

    template = "logical_block_size > physical_block_size not supported"


class NotMultiple(QmpError):
    """(property)."""

    template = "{} must be a multiple of logical_block_size"


class DiscardNotMultiple(QmpError):
    """What is discarded would not be whole blocks."""

    template = "discard_granularity must be a multiple of logical_block_size"


class MinimumTooBig(QmpError):
    """(blocks)."""

    template = "min_io_size must not exceed {} logical blocks"


class BadGeometry(QmpError):
    """(property, the greatest)."""

    template = "{} must be between 1 and {}"


class BlockSizeRange(QmpError):
    """(id, property, bytes)."""

    template = "Property {}.{} doesn't take value {} (minimum: 512, maximum: 2097152)"


class BlockSizePower(QmpError):
    """(id, property, bytes)."""

    template = "Property {}.{} doesn't take value '{}', it's not a power of 2"


class BadPropertyValue(QmpError):
    """(type, property, value)."""

    template = "Property '{}.{}' doesn't take value '{}'"


class NotReadable(QmpError):
    """(type, property)."""

    template = "Property '{}.{}' is not readable"


class RealisedAlready(QmpError):
    """(property, device, type)."""

    template = "Attempt to set property '{}' on {} (type '{}') after it was realized"


class BootIndexTaken(QmpError):
    """(index)."""

    template = "The bootindex {} has already been used"
