"""What virtio devices and their guest's driver have agreed on (qapi/virtio.json)."""

from blockemu.qmp_server.qapi import U8, U16, U32, U64, Struct


class VirtioDeviceStatus(Struct):
    """How far the driver is.

    @statuses: what it has done
    @unknown-statuses: bits without a name
    """

    statuses: list[str]
    unknown_statuses: U8 | None = None


class VhostDeviceProtocols(Struct):
    """What the other side of a vhost device can do.

    @protocols: what
    @unknown-protocols: bits without a name
    """

    protocols: list[str]
    unknown_protocols: U64 | None = None


class VirtioDeviceFeatures(Struct):
    """What a side can do.

    @transports: with queues
    @dev-features: with this kind of device
    @unknown-dev-features: bits without a name
    """

    transports: list[str]
    dev_features: list[str] | None = None
    unknown_dev_features: U64 | None = None


class VhostStatus(Struct):
    """A device that another program is.

    @n-mem-sections: parts of memory that it may use
    @n-tmp-sections: parts that are being changed
    @nvqs: its queues
    @vq-index: the first of them
    @features: what it can do
    @acked-features: what the driver will use
    @backend-features: what the other program can do
    @protocol-features: what may be said to it
    @max-queues: the most queues
    @backend-cap: what else it can do
    @log-enabled: whether it notes what it writes
    @log-size: how much it notes
    """

    n_mem_sections: int
    n_tmp_sections: int
    nvqs: U32
    vq_index: int
    features: VirtioDeviceFeatures
    acked_features: VirtioDeviceFeatures
    backend_features: VirtioDeviceFeatures
    protocol_features: VhostDeviceProtocols
    max_queues: U64
    backend_cap: U64
    log_enabled: bool
    log_size: U64


class VirtioStatus(Struct):
    """A virtio device.

    @name: its kind
    @device-id: the kind's number
    @vhost-started: whether another program is at work
    @device-endian: the order of its bytes
    @guest-features: what the driver will use
    @host-features: what it can do
    @backend-features: what another program can do
    @num-vqs: how many queues it has
    @status: how far the driver is
    @isr: why it interrupts
    @queue-sel: the queue that is looked at
    @vm-running: whether the machine runs, as it knows
    @broken: whether it has given up
    @disabled: whether it was taken away
    @use-started: whether `started` means anything
    @started: whether it is at work
    @start-on-kick: whether it begins at the first request
    @disable-legacy-check: whether old drivers may use it in any case
    @bus-name: the bus that it brings
    @use-guest-notifier-mask: whether interrupts can be held back
    @vhost-dev: the other program
    """

    name: str
    device_id: U16
    vhost_started: bool
    device_endian: str
    guest_features: VirtioDeviceFeatures
    host_features: VirtioDeviceFeatures
    backend_features: VirtioDeviceFeatures
    num_vqs: int
    status: VirtioDeviceStatus
    isr: U8
    queue_sel: U16
    vm_running: bool
    broken: bool
    disabled: bool
    use_started: bool
    started: bool
    start_on_kick: bool
    disable_legacy_check: bool
    bus_name: str
    use_guest_notifier_mask: bool
    vhost_dev: VhostStatus | None = None


class VirtQueueStatus(Struct):
    """A queue.

    @name: the kind of device
    @queue-index: its number
    @inuse: requests under way
    @vring-num: requests that it takes
    @vring-num-default: requests that it took at first
    @vring-align: where its parts begin
    @vring-desc: address of the requests
    @vring-avail: address of what the driver has put in
    @vring-used: address of what is done
    @last-avail-idx: what the device has taken
    @shadow-avail-idx: what it knows to be there
    @used-idx: what is done
    @signalled-used: what it has told of
    @signalled-used-valid: whether that is known
    """

    name: str
    queue_index: U16
    inuse: U32
    vring_num: U32
    vring_num_default: U32
    vring_align: U32
    vring_desc: U64
    vring_avail: U64
    vring_used: U64
    last_avail_idx: U16 | None = None
    shadow_avail_idx: U16 | None = None
    used_idx: U16
    signalled_used: U16
    signalled_used_valid: bool


class VirtVhostQueueStatus(Struct):
    """A queue that another program serves.

    @name: the kind of device
    @kick: descriptor by which it hears of requests
    @call: descriptor by which it tells of them
    @desc: where it has the requests
    @avail: where it has what the driver has put in
    @used: where it has what is done
    @num: requests that it takes
    @desc-phys: the guest's address of the requests
    @desc-size: bytes of them
    @avail-phys: the guest's address of what it has put in
    @avail-size: bytes of that
    @used-phys: the guest's address of what is done
    @used-size: bytes of that
    """

    name: str
    kick: int
    call: int
    desc: U64
    avail: U64
    used: U64
    num: int
    desc_phys: U64
    desc_size: U32
    avail_phys: U64
    avail_size: U32
    used_phys: U64
    used_size: U32


class VirtioRingDesc(Struct):
    """A part of a request.

    @addr: where it is
    @len: bytes
    @flags: what may be done with it
    """

    addr: U64
    len: U32
    flags: list[str]


class VirtioRingAvail(Struct):
    """What the driver has put in.

    @flags: whether it wants to hear
    @idx: how much
    @ring: the request
    """

    flags: U16
    idx: U16
    ring: U16


class VirtioRingUsed(Struct):
    """What is done.

    @flags: whether the device wants to hear
    @idx: how much
    """

    flags: U16
    idx: U16


class VirtioQueueElement(Struct):
    """A request.

    @name: the kind of device
    @index: its number
    @descs: its parts
    @avail: what the driver has put in
    @used: what is done
    """

    name: str
    index: U32
    descs: list[VirtioRingDesc]
    avail: VirtioRingAvail
    used: VirtioRingUsed
