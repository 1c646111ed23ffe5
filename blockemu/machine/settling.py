"""What a device finds out when it comes to life, and what it will not have then.

Its place on its bus first, then sizes and shapes of its disk, at last the words by which a guest
knows it (realize of hw/block/fdc.c, hw/ide/qdev.c, hw/scsi/scsi-bus.c, scsi-disk.c, virtio-blk.c,
virtio-scsi.c, virtio-pci.c, hw/block/block.c, hw/pci/pci.c).
"""

from typing import Any, Final

from blockemu.backend import Backend
from blockemu.machine import refusals
from blockemu.machine.device import Device
from blockemu.machine.geometry import SECTOR, drive_type, guess, translate
from blockemu.machine.pci import FUNCTIONS, SLOTS, VIRTIO_NEW
from blockemu.machine.properties import UNSET
from blockemu.machine.types import Drive

_AUTO_QUEUES: Final = 0xFFFF
_MOST_SECTORS: Final = 4194303  # of one request
_MOST_QUEUES: Final = 1024
_FIXED_QUEUES: Final = 2  # of virtio-scsi: control and events
_SCSI_LIMITS: Final = {"lsi53c895a": (0, 7, 0)}  # channel, target, lun
_VIRTIO_LIMITS: Final = (0, 255, 16383)
_VERSION: Final = "2.5+"
_MOST_ACPI_INDEX: Final = 16383


# Places


def take_place(device: Device) -> None:
    """Find the place of a device on its bus.  Raises QmpError: there is none, or it is taken."""
    kinds = {"PCI": _take_slot, "SCSI": _take_target, "IDE": _take_unit, "floppy-bus": _take_unit}
    place = kinds.get(device.bus.kind)
    if place is not None:
        place(device)


def _take_slot(device: Device) -> None:
    """Take a slot and a function (do_pci_register_device)."""
    wanted, taken = device.state["addr"], {d.state["addr"]: d for d in device.bus.devices}
    if wanted < 0:
        free = (n for n in range(0, SLOTS * FUNCTIONS, FUNCTIONS) if n not in taken)
        wanted = next(free, -1)
        if wanted < 0:
            raise refusals.NoSlot(device.model.name)
    slot, function = divmod(wanted, FUNCTIONS)
    if (other := taken.get(wanted)) is not None:
        raise refusals.SlotTaken(
            slot, function, device.model.name, other.model.name, other.id or "(null)"
        )
    if device.hotplugged and (first := taken.get(slot * FUNCTIONS)) is not None:
        raise refusals.FunctionHidden(slot, first.model.name, device.model.name)
    device.state["addr"] = wanted


def check_index(device: Device) -> None:
    """Refuse an index that ACPI cannot tell (acpi_pcihp_device_pre_plug_cb)."""
    if device.state.get("acpi-index", 0) > _MOST_ACPI_INDEX:
        raise refusals.BadAcpiIndex(_MOST_ACPI_INDEX)


def _take_target(device: Device) -> None:
    """Take an id and a logical unit number (scsi_bus_check_address, scsi_qdev_realize)."""
    state, owner = device.state, device.bus.owner
    limits = _SCSI_LIMITS.get(owner.model.name if owner else "", _VIRTIO_LIMITS)
    channel, target, lun = (state[key] for key in ("channel", "scsi-id", "lun"))
    for given, most, what in zip((channel, target, lun), limits, _SCSI_WORDS, strict=True):
        if given > most and given != UNSET:
            raise refusals.BadScsiNumber(what, given)
    taken = {tuple(d.state[k] for k in ("channel", "scsi-id", "lun")): d for d in _beside(device)}
    if UNSET not in (target, lun):
        if (other := taken.get((channel, target, lun))) is not None:
            raise refusals.LunTaken(other.id or "(null)")
    elif target == UNSET:
        lun = 0 if lun == UNSET else lun
        free = (n for n in range(limits[1] + 1) if (channel, n, lun) not in taken)
        target = next(free, -1)
        if target < 0:
            raise refusals.NoFreeTarget
    else:
        lun = next((n for n in range(limits[2] + 1) if (channel, target, n) not in taken), -1)
        if lun < 0:
            raise refusals.NoFreeLun
    state["scsi-id"], state["lun"] = target, lun


_SCSI_WORDS: Final = ("channel id", "device id", "device lun")


def _take_unit(device: Device) -> None:
    """Take a unit of an IDE bus or of a floppy controller."""
    kind = "IDE" if device.bus.kind == "IDE" else "floppy"
    unit, most = device.state["unit"], device.bus.units
    taken = [each.state["unit"] for each in _beside(device)]
    if unit == UNSET:
        if kind == "IDE":
            unit = 1 if 0 in taken else 0
        else:
            unit = next(n for n in range(most + 1) if n not in taken)
    if unit >= most:
        raise refusals.TooFewUnits(kind, unit, most)
    if unit in taken:
        raise (refusals.IdeUnitTaken if kind == "IDE" else refusals.FloppyUnitTaken)(unit)
    device.state["unit"] = unit


def _beside(device: Device) -> list[Device]:
    return [each for each in device.bus.devices if each is not device]


# Controllers


def settle_controller(device: Device) -> None:
    """Find out how many queues and vectors a virtio device has, and check them."""
    state, inner = device.state, device.inner
    if inner is None:
        return
    if device.model.does_nothing:
        return
    queues = "num-queues" if "num-queues" in inner.state else "num_queues"
    if inner.state[queues] in (_AUTO_QUEUES, UNSET):
        inner.state[queues] = 1
    fixed = 1 if queues == "num-queues" else _FIXED_QUEUES + 1
    if state["vectors"] == UNSET:
        state["vectors"] = inner.state[queues] + fixed
    if queues == "num_queues":
        _check_scsi_queues(inner.state)


def check_modes(device: Device) -> None:
    """Refuse a virtio device that is neither of the old kind nor of the new one."""
    mode = device.state.get("disable-legacy")
    if mode is None:
        return
    if mode == "auto":
        new = device.model.pci is not None and device.model.pci.device >= VIRTIO_NEW
        mode = "on" if new or device.bus.express else "off"
        device.state["disable-legacy"] = mode
    if mode == "on" and device.state["disable-modern"]:
        raise refusals.NoMode(hint="Set either disable-modern or disable-legacy to off\n")


def _check_scsi_queues(state: dict[str, Any]) -> None:
    most = _MOST_QUEUES - _FIXED_QUEUES
    if not 0 < state["num_queues"] <= most:
        raise refusals.BadScsiQueues(state["num_queues"], most)
    if state["virtqueue_size"] <= 2:
        raise refusals.ShortScsiQueue(state["virtqueue_size"])


def _check_blk_queues(state: dict[str, Any]) -> None:
    if not state["num-queues"]:
        raise refusals.NoQueues
    size = state["queue-size"]
    if size <= 2:
        raise refusals.ShortQueue(size)
    if size & (size - 1) or size > _MOST_QUEUES:
        raise refusals.OddQueue(size, _MOST_QUEUES)


# Disks


async def settle_disk(device: Device, backend: Backend) -> None:
    """Find out sizes of blocks and the geometry.  Raises QmpError: they cannot be."""
    state, kind = device.owner.state, device.bus.kind
    if kind == "IDE":
        _settle_ide_discard(state)
    if device.inner is not None:
        _check_blk_queues(state)
    _settle_blocks(state)
    if kind == "IDE" and state["logical_block_size"] != SECTOR:
        raise refusals.IdeBlocks
    if kind == "floppy-bus" and {state[key] for key in _SIZES} != {SECTOR}:
        raise refusals.FloppyBlocks
    if "cyls" in state:
        await _settle_geometry(state, backend, heads=16 if kind == "IDE" else 255)
    if device.inner is not None:
        for feature in ("discard", "write-zeroes"):
            name = f"max-{feature}-sectors"
            if state[feature] and not 0 < state[name] <= _MOST_SECTORS:
                raise refusals.BadMostSectors(name, state[name], _MOST_SECTORS)


_SIZES: Final = ("logical_block_size", "physical_block_size")


def _settle_ide_discard(state: dict[str, Any]) -> None:
    if state["discard_granularity"] == UNSET:
        state["discard_granularity"] = SECTOR
    elif state["discard_granularity"] not in (0, SECTOR):
        raise refusals.IdeDiscard


def _settle_blocks(state: dict[str, Any]) -> None:
    """Give sizes of blocks their defaults and check what must fit them (blkconf_blocksizes)."""
    for name in _SIZES:
        state[name] = state[name] or SECTOR
    logical = state["logical_block_size"]
    if logical > state["physical_block_size"]:
        raise refusals.BlocksTooBig
    if state["min_io_size"] % logical:
        raise refusals.NotMultiple("min_io_size")
    if state["min_io_size"] // logical > 0xFFFF:
        raise refusals.MinimumTooBig(0xFFFF)
    if state["opt_io_size"] % logical:
        raise refusals.NotMultiple("opt_io_size")
    granularity = state["discard_granularity"]
    if granularity != UNSET and granularity % logical:
        raise refusals.DiscardNotMultiple


async def _settle_geometry(state: dict[str, Any], backend: Backend, *, heads: int) -> None:
    """Take the geometry that was given, or guess one (blkconf_geometry)."""
    given = [state[key] for key in ("cyls", "heads", "secs")]
    if any(given):
        translation = translate(*given)
    else:
        *given, translation = await guess(backend)
        state |= dict(zip(("cyls", "heads", "secs"), given, strict=True))
    if state.get("bios-chs-trans") == "auto":
        state["bios-chs-trans"] = translation
    for name, most in (("cyls", 65535), ("heads", heads), ("secs", 255)):
        if not 1 <= state[name] <= most:
            raise refusals.BadGeometry(name, most)


# Words


def name_disk(device: Device, backend: Backend) -> None:
    """Give a disk the words that a guest knows it by, where none were given."""
    state, kind = device.state, device.bus.kind
    if kind == "SCSI":
        _name_scsi(state, backend, medium=device.model.drive is Drive.MEDIUM)
    elif kind == "IDE":
        state["ver"] = state["ver"] or _VERSION
        if state["serial"] is None:
            number = int(device.bus.title.partition(".")[2]) * 2 + state["unit"] + 1
            state["serial"] = f"QM{number:05}"
    elif kind == "floppy-bus" and state["drive-type"] == "auto":
        owner = device.bus.owner
        fallback = owner.state["fallback"] if owner else "288"
        empty = backend.inserted is None
        sectors = -1 if empty else backend.length // SECTOR
        state["drive-type"] = drive_type(sectors, fallback)


def _name_scsi(state: dict[str, Any], backend: Backend, *, medium: bool) -> None:
    if state["discard_granularity"] == UNSET:
        state["discard_granularity"] = max(state["logical_block_size"], 4096)
    state["ver"] = _VERSION if state["ver"] is None else state["ver"]
    state["vendor"] = "QEMU" if state["vendor"] is None else state["vendor"]
    if state["product"] is None:
        state["product"] = "QEMU CD-ROM" if medium else "QEMU HARDDISK"
    if state["device_id"] is None:
        state["device_id"] = state["serial"][:20] if state["serial"] else backend.title or None
