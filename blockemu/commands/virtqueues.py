"""What virtio devices and their driver have agreed on: nothing, since nobody drives them.

After the functions of the same names in QEMU's hw/virtio/virtio.c.
"""

from collections.abc import Mapping
from typing import Any, Final

from blockemu.commands.context import Context
from blockemu.errors import QmpError
from blockemu.machine.device import Inner
from blockemu.perm import Perm
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import U16
from blockemu.schema.virtqueues import (
    VirtioDeviceFeatures,
    VirtioDeviceStatus,
    VirtioQueueElement,
    VirtioStatus,
    VirtQueueStatus,
    VirtVhostQueueStatus,
)

_ALIGN: Final = 4096  # bytes
_QUEUE_RESET: Final = 1 << 40  # has no name
_OTHER_QUEUES: Final = 2  # of SCSI: what is controlled, what is told
_NUMBERS: Final = {"virtio-blk": 2, "virtio-scsi": 8}
_TRANSPORT: Final = (
    ("event_idx", "VIRTIO_RING_F_EVENT_IDX: Used & avail. event fields enabled"),
    ("indirect_desc", "VIRTIO_RING_F_INDIRECT_DESC: Indirect descriptors supported"),
    ("packed", "VIRTIO_F_RING_PACKED: Device supports packed VQ layout"),
    ("iommu_platform", "VIRTIO_F_IOMMU_PLATFORM: Device can be used on IOMMU platform"),
    ("modern", "VIRTIO_F_VERSION_1: Device compliant for v1 spec (legacy)"),
    ("any_layout", "VIRTIO_F_ANY_LAYOUT: Device accepts arbitrary desc. layouts"),
    (
        "notify_on_empty",
        "VIRTIO_F_NOTIFY_ON_EMPTY: Notify when device runs out of avail. descs. on VQ",
    ),
)
_OLD: Final = (
    "always",
    "VHOST_USER_F_PROTOCOL_FEATURES: Vhost-user protocol features negotiation supported",
)
_DISK: Final = (
    _OLD,
    ("config-wce", "VIRTIO_BLK_F_CONFIG_WCE: Cache writeback and writethrough modes supported"),
    ("flush", "VIRTIO_BLK_F_FLUSH: Flush command supported"),
    ("commands", "VIRTIO_BLK_F_SCSI: SCSI packet commands supported"),
    ("write-zeroes", "VIRTIO_BLK_F_WRITE_ZEROES: Write zeroes command supported"),
    ("discard", "VIRTIO_BLK_F_DISCARD: Discard command supported"),
    ("queues", "VIRTIO_BLK_F_MQ: Multiqueue supported"),
    ("always", "VIRTIO_BLK_F_TOPOLOGY: Topology information available"),
    ("always", "VIRTIO_BLK_F_BLK_SIZE: Block size of disk available"),
    ("read-only", "VIRTIO_BLK_F_RO: Device is read-only"),
    ("always", "VIRTIO_BLK_F_GEOMETRY: Legacy geometry available"),
    ("always", "VIRTIO_BLK_F_SEG_MAX: Max segments in a request is seg_max"),
)
_SCSI: Final = (
    _OLD,
    ("param_change", "VIRTIO_SCSI_F_CHANGE: Reporting and handling LUN changes supported"),
    ("hotplug", "VIRTIO_SCSI_F_HOTPLUG: Reporting and handling hot-plug events supported"),
)


class NotVirtio(QmpError):
    """(path)."""

    template = "Path {} is not a VirtIODevice"


class NotADevice(QmpError):
    """(path)."""

    template = "Path {} is not a VirtIO device"


class NoQueue(QmpError):
    """(number)."""

    template = "Invalid virtqueue number {}"


class NoOtherProgram(QmpError):
    """All devices are served here."""

    template = "Error: vhost device has not started yet"


class NoDriver(QmpError):
    """Nobody has said where the requests are."""

    template = "Region caches not initialized"


def _find(context: Context, path: str, error: type[QmpError] = NotVirtio) -> Inner:
    buses = context.emu.devices.buses
    found = (d.inner for bus in buses for d in bus.devices if d.inner and d.inner.path == path)
    inner = next(found, None)
    if inner is None:
        raise error(path)
    return inner


def _kind(inner: Inner) -> str:
    return inner.model.name.removesuffix("-device")


def _queues(inner: Inner) -> list[int]:
    """Return how many requests each queue takes."""
    state = inner.state
    if _kind(inner) == "virtio-blk":
        return [state["queue-size"]] * state["num-queues"]
    return [state["virtqueue_size"]] * (state["num_queues"] + _OTHER_QUEUES)


def _check_queue(inner: Inner, number: int) -> int:
    sizes = _queues(inner)
    if number >= len(sizes):
        raise NoQueue(number)
    return sizes[number]


def _abilities(inner: Inner) -> Mapping[str, Any]:
    """Return what decides on features; packed queues and the like need a modern device."""
    proxy, state, backend = inner.device.state, inner.state, inner.device.backend
    modern = not proxy.get("disable-modern", False)
    caches = backend is not None and backend.write_cache
    return {
        **state,
        "always": True,
        "modern": modern,
        "any_layout": state["any_layout"] and (modern or _kind(inner) != "virtio-blk"),
        "flush": caches or state.get("config-wce"),
        "commands": not modern,
        "queues": state.get("num-queues", 1) > 1,
        "read-only": backend is not None and not backend.perm & Perm.WRITE,
    }


def _offered(inner: Inner) -> VirtioDeviceFeatures:
    can = _abilities(inner)
    rows = _DISK if _kind(inner) == "virtio-blk" else _SCSI
    return VirtioDeviceFeatures(
        transports=[text for key, text in _TRANSPORT if can[key]],
        dev_features=[text for key, text in rows if can[key]],
        unknown_dev_features=_QUEUE_RESET if can["queue_reset"] else None,
    )


@command(since="7.2", features=("unstable",))
def x_query_virtio_status(context: Context, *, path: str) -> VirtioStatus:
    """Describe a virtio device.

    @path: where it is in the object tree
    """
    inner = _find(context, path)
    nothing = VirtioDeviceFeatures(transports=[], dev_features=[])
    return VirtioStatus(
        name=_kind(inner),
        device_id=_NUMBERS[_kind(inner)],
        vhost_started=False,
        device_endian="little",
        guest_features=nothing,
        host_features=_offered(inner),
        backend_features=nothing,
        num_vqs=len(_queues(inner)),
        status=VirtioDeviceStatus(statuses=[]),
        isr=0,
        queue_sel=0,
        vm_running=context.emu.machine.running,
        broken=False,
        disabled=False,
        use_started=inner.state["use-started"],
        started=False,
        start_on_kick=False,
        disable_legacy_check=inner.state["x-disable-legacy-check"],
        bus_name=inner.child_buses[0].title if inner.child_buses else "",
        use_guest_notifier_mask=True,
    )


@command(since="7.2", features=("unstable",))
def x_query_virtio_queue_status(context: Context, *, path: str, queue: U16) -> VirtQueueStatus:
    """Describe a queue of a virtio device.

    @path: the device's place in the object tree
    @queue: the queue's number
    """
    inner = _find(context, path)
    size = _check_queue(inner, queue)
    return VirtQueueStatus(
        name=_kind(inner),
        queue_index=queue,
        inuse=0,
        vring_num=size,
        vring_num_default=size,
        vring_align=_ALIGN,
        vring_desc=0,
        vring_avail=0,
        vring_used=0,
        last_avail_idx=0,
        shadow_avail_idx=0,
        used_idx=0,
        signalled_used=0,
        signalled_used_valid=False,
    )


@command(since="7.2", features=("unstable",))
def x_query_virtio_vhost_queue_status(
    context: Context, *, path: str, queue: U16
) -> VirtVhostQueueStatus:
    """Describe a queue that another program serves: none does.

    @path: the device's place in the object tree
    @queue: the queue's number
    """
    _find(context, path)
    raise NoOtherProgram


@command(since="7.2", features=("unstable",))
def x_query_virtio_queue_element(
    context: Context, *, path: str, queue: U16, index: U16 | None = None
) -> VirtioQueueElement:
    """Describe a request in a queue: there is none.

    @path: the device's place in the object tree
    @queue: the queue's number
    @index: the request's number
    """
    inner = _find(context, path, NotADevice)
    _check_queue(inner, queue)
    raise NoDriver
