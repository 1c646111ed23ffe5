"""External snapshots: a disk goes on in another image, on top of what it was."""

from contextlib import suppress
from typing import Any

from blockemu import filenames
from blockemu.backend import drained, flush
from blockemu.commands.actions import Action, run
from blockemu.commands.context import Context
from blockemu.creation import img_create
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.image_info import virtual_size
from blockemu.node import Node
from blockemu.node_options import Options
from blockemu.perm import Perm
from blockemu.qmp_server.dispatch import command
from blockemu.records import replace
from blockemu.reopen import set_read_only
from blockemu.schema.backup import NewImageMode
from blockemu.schema.transactions import BlockdevSnapshot, BlockdevSnapshotSync


class IoFailed(QmpError):
    """The disk cannot be flushed."""

    template = "An IO error has occurred"


class OverlayNameMissing(QmpError):
    """Whoever names a node is to name the new one, too."""

    template = "New overlay node-name missing"


class OverlayNameTaken(QmpError):
    """There is a node or device of this name."""

    template = "New overlay node-name already in use"


class OverlayInUse(QmpError):
    """Somebody reads the overlay, and would see it change."""

    template = "The overlay is already in use"


class OverlayIsFilter(QmpError):
    """A filter holds no data of its own."""

    template = "Filters cannot be used as overlays"


class OverlayHasBacking(QmpError):
    """The overlay stands on something already."""

    template = "The overlay already has a backing image"


class OverlayNeedsBacking(QmpError):
    """The overlay's format has no backing files."""

    template = "The overlay does not support backing images"


class Snapshot(Action):
    """An external snapshot (external_snapshot_prepare and on, blockdev.c)."""

    old: Node[Any] | None = None
    new: Node[Any] | None = None
    appended = False

    async def lookup(self) -> Node[Any]:
        """Return the node that is to go on elsewhere."""
        raise NotImplementedError

    async def overlay(self, old: Node[Any]) -> Node[Any]:
        """Return the node that it is to go on in."""
        raise NotImplementedError

    async def prepare(self) -> None:
        """Put the overlay in the node's place."""
        await self.stack.enter_async_context(drained(await self.lookup()))
        self.old = old = await self.lookup()  # again: a job's filter may be gone by now
        self.graph.check_unblocked(old, "external-snapshot")
        if not old.flags.read_only:
            try:
                await flush(old)
            except OSError as e:
                raise IoFailed from e
        self.new = new = await self.overlay(old)
        new.holds += 1
        _check_overlay(new)
        self.graph.append(new, old)
        self.appended = True

    async def commit(self) -> None:
        """Let nobody write to what lies below now; that this fails is no harm."""
        assert self.old is not None
        with suppress(QmpError, OSError):
            await set_read_only(self.graph, self.old, True)

    async def abort(self) -> None:
        """Let the disk go on where it was."""
        if self.new is not None and self.appended:
            self.graph.unappend(self.new)

    async def clean(self) -> None:
        """Close an overlay that was not used."""
        await super().clean()
        if self.new is not None:
            self.new.holds -= 1
            await self.graph.release(self.new)


def _check_overlay(node: Node[Any]) -> None:
    """Refuse what cannot be an overlay; a mirror that only writes to it is no hindrance."""
    perm, _ = node.cumulative_perm()
    if perm & Perm.CONSISTENT_READ:
        raise OverlayInUse
    if node.is_filter:
        raise OverlayIsFilter
    if node.backing is not None:
        raise OverlayHasBacking
    if not node.supports_backing:
        raise OverlayNeedsBacking


class SnapshotToNode(Snapshot):
    """blockdev-snapshot."""

    kind = "blockdev-snapshot"

    def __init__(self, emu: Emulator, options: BlockdevSnapshot) -> None:
        super().__init__(emu)
        self.options = options

    async def lookup(self) -> Node[Any]:
        """Look the node up by either name."""
        return self.graph.lookup(self.options.node)

    async def overlay(self, old: Node[Any]) -> Node[Any]:
        """Look the overlay up."""
        return self.graph.lookup(self.options.overlay)


class SnapshotToFile(Snapshot):
    """blockdev-snapshot-sync."""

    kind = "blockdev-snapshot-sync"

    def __init__(self, emu: Emulator, options: BlockdevSnapshotSync) -> None:
        super().__init__(emu)
        self.options = options

    async def lookup(self) -> Node[Any]:
        """Look the node up by the name that is given."""
        return self.graph.lookup_either(self.options.device, self.options.node_name)

    async def overlay(self, old: Node[Any]) -> Node[Any]:
        """Create the image where that is asked, and open it."""
        wanted = self.options
        name = wanted.snapshot_node_name
        if wanted.node_name is not None and name is None:
            raise OverlayNameMissing
        if name is not None and (name in self.graph.backends or name in self.graph.nodes):
            raise OverlayNameTaken
        fmt = wanted.format if wanted.format is not None else "qcow2"
        if wanted.mode is not NewImageMode.EXISTING:
            filenames.refresh(old)
            await img_create(
                self.emu.opener,
                wanted.snapshot_file,
                fmt,
                base_filename=old.full_filename,
                base_fmt=old.driver,
                size=virtual_size(old),
                flags=replace(old.flags, no_backing=True),
                quiet=False,
            )
        options: Options = {"driver": fmt}
        if name is not None:
            options = {"node-name": name, "driver": fmt}
        return await self.emu.opener.open(
            options, filename=wanted.snapshot_file, defaults=flags_of(old) | {"backing": None}
        )


def flags_of(node: Node[Any]) -> Options:
    """Return how a node was opened, as options for another one (BlockDriverState.open_flags)."""
    flags = node.flags
    options: Options = {
        "read-only": flags.read_only,
        "auto-read-only": flags.auto_read_only,
        "cache": {"direct": flags.direct, "no-flush": flags.no_flush},
    }
    if flags.unmap:
        options["discard"] = "unmap"
    return options


@command(since="2.5", features={"allow-write-only-overlay": "5.0"})
async def blockdev_snapshot(context: Context, options: BlockdevSnapshot) -> None:
    """Let a disk go on in another node, on top of what it is now."""
    await run(context.emu, [SnapshotToNode(context.emu, options)])


@command(since="0.14")
async def blockdev_snapshot_sync(context: Context, options: BlockdevSnapshotSync) -> None:
    """Let a disk go on in a new image, on top of what it is now."""
    await run(context.emu, [SnapshotToFile(context.emu, options)])
