"""What of a machine's memory is near to which CPU (qapi/machine.json)."""

from typing import Annotated

from blockemu.qmp_server.qapi import U8, U16, U32, U64, QEnum, Since, Size, Struct, Union
from blockemu.schema.machine_facts import CpuInstanceProperties

NUMA = Union("NumaOptions", "type")


class HmatLBMemoryHierarchy(QEnum):
    """How near to a CPU memory is."""

    MEMORY = "memory"
    FIRST_LEVEL = "first-level"
    SECOND_LEVEL = "second-level"
    THIRD_LEVEL = "third-level"


class HmatLBDataType(QEnum):
    """What is measured."""

    ACCESS_LATENCY = "access-latency"
    READ_LATENCY = "read-latency"
    WRITE_LATENCY = "write-latency"
    ACCESS_BANDWIDTH = "access-bandwidth"
    READ_BANDWIDTH = "read-bandwidth"
    WRITE_BANDWIDTH = "write-bandwidth"


class HmatCacheAssociativity(QEnum):
    """Where in a cache an address may be."""

    NONE = "none"
    DIRECT = "direct"
    COMPLEX = "complex"


class HmatCacheWritePolicy(QEnum):
    """When a cache writes."""

    NONE = "none"
    WRITE_BACK = "write-back"
    WRITE_THROUGH = "write-through"


class NumaOptions(Struct, union=NUMA):
    """Something about nodes."""


class NumaNodeOptions(NumaOptions, tag="node"):
    """A node.

    @nodeid: its number
    @cpus: its CPUs
    @mem: bytes of its memory
    @memdev: the object that is its memory
    @initiator: the node with the CPUs that are nearest
    """

    nodeid: U16 | None = None
    cpus: list[U16] | None = None
    mem: Size | None = None
    memdev: str | None = None
    initiator: Annotated[U16 | None, Since("5.0")] = None


class NumaDistOptions(NumaOptions, tag="dist"):
    """How far one node is from another.

    @src: the one
    @dst: the other
    @val: how far, where 10 is the way to itself
    """

    src: U16
    dst: U16
    val: U8


class NumaCpuOptions(NumaOptions, CpuInstanceProperties, tag="cpu"):
    """Which node a CPU belongs to."""


class NumaHmatLBOptions(NumaOptions, tag="hmat-lb", since="5.0"):
    """How fast a node reaches another's memory.

    @initiator: the one
    @target: the other
    @hierarchy: how near the memory is
    @data-type: what is measured
    @latency: nanoseconds
    @bandwidth: bytes a second
    """

    initiator: U16
    target: U16
    hierarchy: HmatLBMemoryHierarchy
    data_type: HmatLBDataType
    latency: U64 | None = None
    bandwidth: Size | None = None


class NumaHmatCacheOptions(NumaOptions, tag="hmat-cache", since="5.0"):
    """A cache of a node's memory.

    @node-id: the node
    @size: bytes
    @level: how near to the CPU it is
    @associativity: where in it an address may be
    @policy: when it writes
    @line: bytes of a line
    """

    node_id: U32
    size: Size
    level: U8
    associativity: HmatCacheAssociativity
    policy: HmatCacheWritePolicy
    line: U16


AnyNuma = Annotated[NumaOptions, NUMA]
