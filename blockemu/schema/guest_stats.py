"""Statistics of guests, as KVM would keep them (qapi/stats.json)."""

from typing import Annotated

from blockemu.qmp_server.qapi import U32, U64, Alternate, QEnum, Struct, Union, values


class StatsType(QEnum):
    """How a statistic changes."""

    CUMULATIVE = "cumulative"
    INSTANT = "instant"
    PEAK = "peak"
    LINEAR_HISTOGRAM = "linear-histogram"
    LOG2_HISTOGRAM = "log2-histogram"


@values(since={"boolean": "7.2"})
class StatsUnit(QEnum):
    """What a statistic counts."""

    BYTES = "bytes"
    SECONDS = "seconds"
    CYCLES = "cycles"
    BOOLEAN = "boolean"


class StatsProvider(QEnum):
    """Who keeps statistics."""

    KVM = "kvm"


class StatsTarget(QEnum):
    """What they are of."""

    VM = "vm"
    VCPU = "vcpu"


class StatsRequest(Struct):
    """Which statistics are wanted.

    @provider: who keeps them
    @names: their names
    """

    provider: StatsProvider
    names: list[str] | None = None


FILTER = Union("StatsFilter", "target")


class StatsFilter(Struct, union=FILTER):
    """Which statistics are wanted, and of what.

    @providers: which
    """

    providers: list[StatsRequest] | None = None


class StatsVMFilter(StatsFilter, tag="vm"):
    """Statistics of the machine."""


class StatsVCPUFilter(StatsFilter, tag="vcpu"):
    """Statistics of CPUs.

    @vcpus: their paths
    """

    vcpus: list[str] | None = None


AnyFilter = Annotated[StatsFilter, FILTER]


StatsValue = Annotated[U64 | bool | list[U64], Alternate("StatsValue", (U64, bool, list[U64]))]


class Stats(Struct):
    """A statistic.

    @name: its name
    @value: its value
    """

    name: str
    value: StatsValue


class StatsResult(Struct):
    """Statistics of one thing.

    @provider: who keeps them
    @qom-path: what they are of
    @stats: the statistics
    """

    provider: StatsProvider
    qom_path: str | None = None
    stats: list[Stats]


class StatsSchemaValue(Struct):
    """What a statistic is.

    @name: its name
    @type: how it changes
    @unit: what it counts
    @base: what ``exponent`` is of
    @exponent: what the value is to be multiplied by
    @bucket-size: how wide what is counted together is
    """

    name: str
    type: StatsType
    unit: StatsUnit | None = None
    base: int | None = None
    exponent: int
    bucket_size: U32 | None = None


class StatsSchema(Struct):
    """What statistics there are of some kind of thing.

    @provider: who keeps them
    @target: the kind of thing
    @stats: the statistics
    """

    provider: StatsProvider
    target: StatsTarget
    stats: list[StatsSchemaValue]
