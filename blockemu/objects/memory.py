"""Objects that a machine's memory and its random numbers would come from.

Nobody asks for either, so they keep what they were told and hold nothing; a file is made, since
others may look for it.  After backends/hostmem.c, hostmem-file.c, rng.c and rng-random.c.
"""

import os
import stat
from typing import Any, ClassVar, Final

from blockemu.errors import MissingParameter, QmpError
from blockemu.host.hostpath import open_path
from blockemu.objects.qom import Property, attribute
from blockemu.objects.user_object import Known, UserObject
from blockemu.schema import memory_objects  # noqa: F401 - declares their options
from blockemu.schema.guest_memory import HostMemPolicy

_PAGE: Final = 4096


class BadValue(QmpError):
    """(property, type, value)."""

    template = "property '{}' of {} doesn't take value '{}'"


class NodesMissing(QmpError):
    """(policy)."""

    template = "host-nodes must be set for policy {}"


class NodesGiven(QmpError):
    """Nodes without a policy for them."""

    template = (
        "host-nodes must be empty for policy default, or you should explicitly specify a policy "
        "other than default"
    )


class NoStore(QmpError):
    """(path, why)."""

    template = "can't open backing store {} for guest RAM: {}"


class StoreMismatch(QmpError):
    """(its bytes, those that were asked for, in hexadecimal)."""

    template = "backing store size {} does not match 'size' option {}"


class BadAlignment(QmpError):
    """(alignment, page size, in hexadecimal)."""

    template = "alignment {} must be multiples of page size {}"


def _positive(name: str, type_: str = "int") -> Property:
    key = name.replace("-", "_")

    def write(self: Any, value: int) -> None:
        if not value:
            raise BadValue(name, self.TYPE, value)
        setattr(self, key, value)

    return Property(name, type_, int, lambda self: getattr(self, key), write)


class MemoryBackend(UserObject):
    """Memory for a guest."""

    TYPE = "memory-backend"
    PROPERTIES: ClassVar[tuple[Property, ...]] = (
        attribute("merge", "bool", bool),
        attribute("dump", "bool", bool),
        attribute("prealloc", "bool", bool),
        _positive("prealloc-threads"),
        attribute("prealloc-context", "link<thread-context>", str),
        _positive("size"),
        attribute("host-nodes", "int", list[int]),
        attribute("policy", "HostMemPolicy", HostMemPolicy),
        attribute("share", "bool", bool),
        attribute("reserve", "bool", bool),
        attribute("x-use-canonical-path-for-ramblock-id", "bool", bool),
    )

    def __init__(self) -> None:
        super().__init__()
        self.merge = self.dump = self.reserve = True
        self.prealloc = self.share = self.x_use_canonical_path_for_ramblock_id = False
        self.prealloc_threads = 1
        self.prealloc_context = ""
        self.size = 0
        self.host_nodes: list[int] = []
        self.policy = HostMemPolicy.DEFAULT

    def complete(self, objects: Known) -> None:
        """Check what was set (host_memory_backend_memory_complete)."""
        if not self.size:
            raise MissingParameter("size")
        self.make()
        if not self.host_nodes and self.policy is not HostMemPolicy.DEFAULT:
            raise NodesMissing(self.policy.value)
        if self.host_nodes and self.policy is HostMemPolicy.DEFAULT:
            raise NodesGiven

    def make(self) -> None:
        """Make what others may look for."""


class MemoryBackendRam(MemoryBackend):
    """Memory of the program."""

    TYPE = "memory-backend-ram"


class MemoryBackendFile(MemoryBackend):
    """Memory that is a file."""

    TYPE = "memory-backend-file"
    PROPERTIES = (
        attribute("discard-data", "bool", bool),
        attribute("mem-path", "string", str),
        attribute("align", "int", int),
        attribute("pmem", "bool", bool),
        attribute("readonly", "bool", bool),
    )

    def __init__(self) -> None:
        super().__init__()
        self.discard_data = self.pmem = self.readonly = False
        self.mem_path = ""
        self.align = 0

    def make(self) -> None:
        """Make the file as large as the memory, unless it is so already (file_ram_open)."""
        flags = os.O_RDONLY if self.readonly else os.O_RDWR
        try:
            if os.path.isdir(self.mem_path):  # noqa: PTH112 - start-up
                flags |= os.O_TMPFILE
            elif not self.readonly:
                flags |= os.O_CREAT
            fd = os.open(self.mem_path, flags | os.O_CLOEXEC, 0o644)
        except OSError as e:
            raise NoStore(self.mem_path, e.strerror) from e
        try:
            if self.align % _PAGE:
                raise BadAlignment(f"{self.align:#x}", f"{_PAGE:#x}")
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                return
            if found.st_size and self.size > found.st_size:
                raise StoreMismatch(f"{found.st_size:#x}", f"{self.size:#x}")
            if not found.st_size and not self.readonly:
                os.ftruncate(fd, -(-self.size // _PAGE) * _PAGE)
        finally:
            os.close(fd)


class MemoryBackendMemfd(MemoryBackend):
    """Memory that is a file without a name."""

    TYPE = "memory-backend-memfd"
    PROPERTIES = (
        attribute("hugetlb", "bool", bool),
        _positive("hugetlbsize"),
        attribute("seal", "bool", bool),
    )

    def __init__(self) -> None:
        super().__init__()
        self.hugetlb = False
        self.hugetlbsize = 0
        self.seal = self.share = True


class Rng(UserObject):
    """Where random numbers come from; ``opened`` is what it is once it is made."""

    TYPE = "rng-backend"
    PROPERTIES: ClassVar[tuple[Property, ...]] = (attribute("opened", "bool", bool),)

    def __init__(self) -> None:
        super().__init__()
        self.opened = False

    def complete(self, objects: Known) -> None:
        """Be open."""
        self.opened = True


class RngBuiltin(Rng):
    """The program itself."""

    TYPE = "rng-builtin"


class RngRandom(Rng):
    """A file."""

    TYPE = "rng-random"
    PROPERTIES = (attribute("filename", "string", str),)

    def __init__(self) -> None:
        super().__init__()
        self.filename = "/dev/urandom"

    def complete(self, objects: Known) -> None:
        """See whether the file can be read."""
        os.close(open_path(self.filename, os.O_RDONLY | os.O_NONBLOCK))
        super().complete(objects)
