"""Objects that a machine's memory and its random numbers would come from (qapi/qom.json)."""

from typing import Annotated

from blockemu.qmp_server.qapi import U16, U32, Deprecated, Since, Size
from blockemu.schema.guest_memory import HostMemPolicy
from blockemu.schema.objects import ObjectProperties


class MemoryBackendProperties(ObjectProperties, tag="memory-backend-ram"):
    """Memory for a guest.

    @dump: whether it is in core dumps
    @host-nodes: the host's nodes that it is on
    @merge: whether equal pages are merged
    @policy: how it is spread over them
    @prealloc: whether it is there from the start
    @prealloc-threads: threads that see to that
    @prealloc-context: what these run in
    @share: whether it is shared
    @reserve: whether swap space is kept for it
    @size: bytes
    @x-use-canonical-path-for-ramblock-id: whether migration calls it by its path
    """

    dump: bool | None = None
    host_nodes: list[U16] | None = None
    merge: bool | None = None
    policy: HostMemPolicy | None = None
    prealloc: bool | None = None
    prealloc_threads: U32 | None = None
    prealloc_context: Annotated[str | None, Since("7.2")] = None
    share: bool | None = None
    reserve: Annotated[bool | None, Since("6.1")] = None
    size: Size
    x_use_canonical_path_for_ramblock_id: bool | None = None


class MemoryBackendFileProperties(MemoryBackendProperties, tag="memory-backend-file"):
    """Memory that is a file.

    @align: what its address is a multiple of, in bytes
    @discard-data: whether the file's content may go at the end
    @mem-path: the file, or a folder for one
    @pmem: whether it is persistent memory
    @readonly: whether the file is only read
    """

    align: Size | None = None
    discard_data: bool | None = None
    mem_path: str
    pmem: bool | None = None
    readonly: bool | None = None


class MemoryBackendMemfdProperties(MemoryBackendProperties, tag="memory-backend-memfd"):
    """Memory that is a file without a name.

    @hugetlb: whether its pages are huge
    @hugetlbsize: how large these are, in bytes
    @seal: whether its size can no longer change
    """

    hugetlb: bool | None = None
    hugetlbsize: Size | None = None
    seal: bool | None = None


class RngProperties(ObjectProperties, tag="rng-builtin"):
    """Random numbers of the program itself.

    @opened: cannot be set any more
    """

    opened: Annotated[bool | None, Deprecated("6.0")] = None


class RngRandomProperties(RngProperties, tag="rng-random"):
    """Random numbers from a file.

    @filename: the file
    """

    filename: str | None = None
