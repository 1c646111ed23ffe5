"""Dirty bitmaps that leave with a machine, or come with one.

After migration/block-dirty-bitmap.c.  A bitmap that leaves is busy until that is over, and is not
stored in the image any more; one that comes is busy until it is whole, while a successor records
what the machine writes meanwhile.
"""

import errno
from collections.abc import Callable, Iterator
from typing import Any, Final

from blockemu.dirty import DirtyBitmap, bitmaps_of
from blockemu.errors import QmpError
from blockemu.graph import Graph
from blockemu.migration import bitmap_wire
from blockemu.migration.aliases import Map
from blockemu.migration.bitmap_wire import Chunks, Namer
from blockemu.migration.wire import Input, Pull
from blockemu.node import Node
from blockemu.records import record

LONGEST: Final = 255  # bytes of a name in the stream
_INVALID: Final = -errno.EINVAL
_SECTOR: Final = 512

Report = Callable[[str], None]


class Unnamed(QmpError):
    """(bitmap, node): the other side's node could not be told."""

    template = "Bitmap '{}' in a node with auto-generated name '{}' can't be migrated"


class NameTooLong(QmpError):
    """(bitmap, node)."""

    template = f"Cannot migrate bitmap '{{}}' on node '{{}}': Name is longer than {LONGEST} bytes"


@record(eq=False)
class Leaving:
    """A bitmap that leaves, and the names by which it does."""

    node: Node[Any]
    bitmap: DirtyBitmap
    names: tuple[str, str]
    flags: int


class LeavingBitmaps:
    """All bitmaps that leave with one migration."""

    def __init__(self, graph: Graph, aliases: Map | None) -> None:
        self._graph = graph
        self._aliases = aliases
        self._all: list[Leaving] = []
        self._namer = Namer()

    def __bool__(self) -> bool:
        return bool(self._all)

    @property
    def pending(self) -> int:
        """How many bits are to be sent."""
        return sum(each.bitmap.bits.size for each in self._all)

    def collect(self) -> None:
        """Find them and keep others from them (init_dirty_bitmap_migration).

        Raises:
            QmpError: one cannot be sent; all are as before.

        """
        try:
            for node, name in self._nodes():
                self._add(node, name)
        except BaseException:
            for each in self._all:
                each.bitmap.busy = False
                each.node.holds -= 1
            self._all.clear()
            raise
        for each in self._all:
            each.bitmap.skip_store = True

    def _nodes(self) -> Iterator[tuple[Node[Any], str]]:
        """Yield the nodes, each with its name: a backend's comes first."""
        handled: set[Node[Any]] = set()
        backends = self._graph.backends.values() if self._aliases is None else ()
        for backend in backends:
            node = backend.inserted if backend.title else None
            while node is not None and node.is_filter and not _has_named(node):
                node = node.filtered.node if node.filtered is not None else None
            if node is not None and not node.is_filter and node not in handled:
                handled.add(node)
                yield node, backend.title
        yield from ((n, n.name) for n in list(self._graph.nodes.values()) if n not in handled)

    def _add(self, node: Node[Any], name: str) -> None:
        named = [each for each in node.bitmap_set or () if each.name is not None]
        if not named:
            return
        node_alias, bitmap_aliases = name, None
        if self._aliases is not None:
            found = self._aliases.get(name)
            if found is None:
                return
            node_alias, bitmap_aliases = found
        if node_alias[:1] == "#":
            raise Unnamed(named[0].name, node_alias)
        for bitmap in named:
            own = bitmap.name or ""
            bitmap.check()
            alias, persistent = own, bitmap.persistent
            if bitmap_aliases is not None:
                if own not in bitmap_aliases:
                    continue
                alias, wanted = bitmap_aliases[own]
                persistent = persistent if wanted is None else wanted
            elif len(own.encode("utf-8", "surrogateescape")) > LONGEST:
                raise NameTooLong(own, name)
            bitmap.busy = True
            node.holds += 1
            flags = bitmap_wire.ENABLED if bitmap.enabled else 0
            flags |= bitmap_wire.PERSISTENT if persistent else 0
            self._all.append(Leaving(node, bitmap, (node_alias, alias), flags))

    def _head(self, each: Leaving, flags: int) -> bytes:
        return self._namer.head(each.node, each.bitmap, each.names, flags)

    def starts(self) -> bytes:
        """Return what announces them."""
        return b"".join(
            self._head(each, bitmap_wire.START)
            + bitmap_wire.start(each.bitmap.granularity, each.flags)
            for each in self._all
        )

    def bits(self, most: int) -> Iterator[bytes]:
        """Yield their bits, up to ``most`` chunks at once."""
        for each in self._all:
            for flags, rest in Chunks(each.bitmap.bits).parts(most):
                yield self._head(each, flags) + rest

    def completes(self) -> bytes:
        """Return what says that they are whole."""
        return b"".join(self._head(each, bitmap_wire.COMPLETE) for each in self._all)

    async def let_go(self) -> None:
        """Let others use them again."""
        leaving, self._all = self._all, []
        for each in leaving:
            each.bitmap.busy = False
            each.node.holds -= 1
        for each in leaving:
            await self._graph.release(each.node)


def _has_named(node: Node[Any]) -> bool:
    return node.bitmap_set is not None and node.bitmap_set.has_named


@record(eq=False)
class Coming:
    """A bitmap that comes; ``enabled``: it shall record."""

    bitmap: DirtyBitmap
    enabled: bool
    whole: bool = False


class ComingBitmaps:
    """The bitmaps that come with one migration."""

    def __init__(self, graph: Graph, aliases: Callable[[], Map | None], report: Report) -> None:
        self._graph = graph
        self._aliases = aliases
        self._report = report
        self._coming: list[Coming] = []
        self._cancelled = False
        self._started = False  # the machine runs
        self._node: Node[Any] | None = None
        self._node_alias = ""
        self._bitmap: DirtyBitmap | None = None
        self._bitmap_name = ""
        self._persistent: bool | None = None  # what the mapping says

    # Sections

    def load(self, source: Input, version: int) -> Pull[int]:
        """Read one section (dirty_bitmap_load)."""
        if version != 1:
            self.cancel()
            return _INVALID
        aliases = self._aliases()
        flags = 0
        while not flags & bitmap_wire.END:
            flags = yield from bitmap_wire.read_flags(source)
            status = yield from self._names(source, flags, aliases)
            if not status:
                status = yield from self._chunk(source, flags)
            if status or source.error:
                self.cancel()
                return status or -source.error
        return 0

    def _chunk(self, source: Input, flags: int) -> Pull[int]:
        if flags & bitmap_wire.START:
            return (yield from self._start(source))
        if flags & bitmap_wire.COMPLETE:
            self._complete()
            return 0
        if flags & bitmap_wire.BITS:
            return (yield from self._bits(source, flags))
        return 0

    # Names

    def _names(self, source: Input, flags: int, aliases: Map | None) -> Pull[int]:
        nothing = flags in (0, bitmap_wire.END)
        if flags & bitmap_wire.NODE_NAME:
            name = yield from source.counted()
            if name is None:
                self._report("Unable to read node alias string")
                return _INVALID
            self._node_alias = name
            if not self._cancelled:
                self._find_node(name, aliases)
        elif self._node is None and not nothing and not self._cancelled:
            self._fail("Error: block device name is not set")
        if flags & bitmap_wire.BITMAP_NAME:
            name = yield from source.counted()
            if name is None:
                self._report("Unable to read bitmap alias string")
                return _INVALID
            if not self._cancelled:
                self._find_bitmap(name, aliases, new=bool(flags & bitmap_wire.START))
        elif self._bitmap is None and not nothing and not self._cancelled:
            self._fail("Error: block device name is not set")
        return 0

    def _find_node(self, alias: str, aliases: Map | None) -> None:
        try:
            if aliases is None:
                self._node = self._graph.lookup(alias)
            elif alias in aliases:
                self._node = self._graph.lookup_either(None, aliases[alias][0])
            else:
                self._fail(f"Error: Unknown node alias '{alias}'")
        except QmpError as e:
            self._fail(str(e))

    def _find_bitmap(self, alias: str, aliases: Map | None, *, new: bool) -> None:
        node, name = self._node, alias
        assert node is not None
        self._persistent = None
        if aliases is not None:
            known = aliases[self._node_alias][1].get(alias)
            if known is None:
                self._fail(
                    f"Error: Unknown bitmap alias '{alias}' on node '{node.name}' "
                    f"(alias '{self._node_alias}')"
                )
                return
            name, self._persistent = known
        self._bitmap_name = name
        self._bitmap = node.bitmap_set.find(name) if node.bitmap_set is not None else None
        if self._bitmap is None and not new:
            self._fail(f"Error: unknown dirty bitmap '{name}' for block device '{node.name}'")

    # Chunks

    def _start(self, source: Input) -> Pull[int]:
        granularity = yield from source.u32()
        flags = yield from source.u8()
        if self._cancelled:
            return 0
        assert self._node is not None
        if self._bitmap is not None:
            self._report(
                f"Bitmap with the same name ('{self._bitmap.name}') already exists on destination"
            )
            return _INVALID
        if granularity < 512 or granularity & granularity - 1:
            return _INVALID  # QEMU dies of it
        try:
            bitmap = bitmaps_of(self._node).add(self._bitmap_name, granularity, enabled=False)
        except QmpError as e:
            self._report(str(e))
            return _INVALID
        self._bitmap = bitmap
        if flags & bitmap_wire.RESERVED:
            self._report(f"Unknown flags in migrated dirty bitmap header: {flags:x}")
            return _INVALID
        persistent = bool(flags & bitmap_wire.PERSISTENT)
        bitmap.persistent = persistent if self._persistent is None else self._persistent
        enabled = bool(flags & bitmap_wire.ENABLED)
        if enabled:
            bitmap.create_successor()
        else:
            bitmap.busy = True
        self._coming.insert(0, Coming(bitmap, enabled))
        return 0

    def _complete(self) -> None:
        bitmap = self._bitmap
        if self._cancelled or bitmap is None:
            return
        _free(bitmap)
        for each in self._coming:
            if each.bitmap is bitmap:
                each.whole = True
                if self._started:
                    self._coming.remove(each)
                break

    def _bits(self, source: Input, flags: int) -> Pull[int]:
        offset = (yield from source.u64()) * _SECTOR
        length = (yield from source.u32()) * _SECTOR
        if flags & bitmap_wire.ZEROES:
            self._put(offset, length, None)
            while (more := bitmap_wire.take_zeroes(source)) is not None:
                self._put(*more, None)
                yield  # others are served meanwhile
            return 0
        size = yield from source.u64()
        if size > bitmap_wire.MOST_CHUNK:
            self._report("Bitmap migration stream buffer allocation request is too large")
            return -errno.EIO
        data = yield from source.some(size)
        if len(data) != size:
            self._report("Failed to read bitmap bits")
            return -errno.EIO
        self._put(offset, length, data)
        return 0

    def _put(self, offset: int, length: int, data: bytes | None) -> None:
        """Take bits, or zeroes, for a part of the disk."""
        bitmap = self._bitmap
        if self._cancelled or bitmap is None:
            return
        bits = bitmap.bits
        length = min(length, max(bits.length - offset, 0))
        try:
            size = bits.serial_size(offset, length) if length else 0
        except ValueError:
            size = -1
        fits = size >= 0 and (data is None or size <= len(data) <= bitmap_wire.aligned(size))
        if not fits:
            self._fail(
                "Migrated bitmap granularity doesn't match the destination bitmap "
                f"'{bitmap.name}' granularity"
            )
        elif length and data is None:
            bits.reset(offset, length)
        elif length and data is not None:
            bits.deserialise(offset, length, data[:size])

    # The machine

    def before_start(self) -> None:
        """Let bitmaps record from now on (dirty_bitmap_mig_before_vm_start)."""
        for each in self._coming:
            if each.enabled and each.whole:
                each.bitmap.enabled = True
            elif each.enabled and each.bitmap.successor is not None:
                each.bitmap.successor.enabled = True
        self._coming = [each for each in self._coming if not each.whole]
        self._started = True

    def cancel(self) -> None:
        """Drop what is not whole, or not needed because the machine never ran."""
        if self._cancelled:
            return
        self._cancelled = True
        self._node = self._bitmap = None
        for each in self._coming:
            _free(each.bitmap)
            each.bitmap.release()
        self._coming.clear()

    def _fail(self, text: str) -> None:
        self._report(text)
        self.cancel()


def _free(bitmap: DirtyBitmap) -> None:
    if bitmap.successor is not None:
        bitmap.reclaim()
    else:
        bitmap.busy = False
