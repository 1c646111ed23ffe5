"""What a driver whose images have internal snapshots can do with them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockemu.images.qcow2.snapshots import Snapshot


class Snapshotting:
    """A part of ``Node``: NotImplementedError where there are none; see ``blockemu.snapshots``."""

    def snapshot_list(self) -> "list[Snapshot]":
        """Return the snapshots, oldest first."""
        raise NotImplementedError

    async def snapshot_create(self, wanted: "Snapshot") -> "Snapshot":
        """Take a snapshot; return it with its id.  Nothing may be in flight."""
        raise NotImplementedError

    async def snapshot_goto(self, ident: str) -> None:
        """Apply the snapshot with an id, or else a name.  Nothing may be in flight."""
        raise NotImplementedError

    async def snapshot_delete(self, ident: str | None, name: str | None) -> None:
        """Delete a snapshot by id, name, or both.  Nothing may be in flight."""
        raise NotImplementedError

    async def snapshot_load_tmp(self, ident: str | None, name: str | None) -> None:
        """Let a read-only disk read as a snapshot has it."""
        raise NotImplementedError

    async def save_vmstate(self, offset: int, data: memoryview) -> None:
        """Write a part of a machine's state; ``offset`` counts from where that begins."""
        raise NotImplementedError

    async def load_vmstate(self, offset: int, buf: memoryview) -> None:
        """Read a part of a machine's state."""
        raise NotImplementedError
