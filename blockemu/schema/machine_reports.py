"""Reports about a machine that are for people, or of what it lacks (qapi/stats.json, net.json)."""

from typing import Annotated, Any

from blockemu.qmp_server.qapi import (
    QEnum,
    Since,
    Struct,
)


class HumanReadableText(Struct):
    """A text.

    @human-readable-text: the text
    """

    human_readable_text: str


class RxState(QEnum):
    """What of some kind a card takes."""

    NORMAL = "normal"
    NONE = "none"
    ALL = "all"


class RxFilterInfo(Struct):
    """What a network card takes.

    @name: the card
    @promiscuous: whether it takes all
    @multicast: what it takes that is for many
    @unicast: what it takes that is for one
    @vlan: what it takes of virtual networks
    @broadcast-allowed: whether it takes what is for all
    @multicast-overflow: whether there are too many addresses
    @unicast-overflow: whether there are too many addresses
    @main-mac: its address
    @vlan-table: virtual networks
    @unicast-table: addresses
    @multicast-table: addresses
    """

    name: str
    promiscuous: bool
    multicast: RxState
    unicast: RxState
    vlan: RxState
    broadcast_allowed: bool
    multicast_overflow: bool
    unicast_overflow: bool
    main_mac: str
    vlan_table: list[int]
    unicast_table: list[str]
    multicast_table: list[str]


class CpuDefinitionInfo(Struct):
    """A type of CPU.

    @name: its name
    @migration-safe: whether it is the same everywhere
    @static: whether it never changes
    @unavailable-features: what the host lacks of it
    @typename: the type of the object
    @alias-of: the type that this name is for
    @deprecated: whether it will be gone
    """

    name: str
    migration_safe: bool | None = None
    static: bool
    unavailable_features: list[str] | None = None
    typename: str
    alias_of: Annotated[str | None, Since("4.1")] = None
    deprecated: Annotated[bool, Since("5.2")]


class CpuModelExpansionType(QEnum):
    """How a CPU is described."""

    STATIC = "static"
    FULL = "full"


class CpuModelInfo(Struct):
    """A CPU.

    @name: its type
    @props: its properties
    """

    name: str
    props: Any = None


class CpuModelExpansionInfo(Struct):
    """A CPU described.

    @model: the CPU
    """

    model: CpuModelInfo


class COLOMode(QEnum):
    """Which of two machines that do the same this is."""

    NONE = "none"
    PRIMARY = "primary"
    SECONDARY = "secondary"


class COLOExitReason(QEnum):
    """Why they do not do the same any more."""

    NONE = "none"
    REQUEST = "request"
    ERROR = "error"
    PROCESSING = "processing"


class COLOStatus(Struct):
    """Whether two machines do the same.

    @mode: which this is
    @last-mode: which it was
    @reason: why they do not any more
    """

    mode: COLOMode
    last_mode: Annotated[COLOMode, Since("4.0")]
    reason: COLOExitReason


class VirtioInfo(Struct):
    """A virtio device.

    @path: its path
    @name: its kind
    """

    path: str
    name: str
