"""Nodes whose size is asked for once, and then changes by their own requests alone.

After bdrv_nb_sectors, block.c: only some drivers (raw, preallocate, those for devices, ...) are
asked again each time.
"""

from typing import ClassVar, Generic, TypeVar

from blockemu.blockdev_options import NodeOptions
from blockemu.node import Node
from blockemu.perm import Perm
from blockemu.transaction import Transaction

O = TypeVar("O", bound=NodeOptions)  # noqa: E741


class KeepsSize(Node[O], Generic[O]):
    """Keeps the size that it had, whatever becomes of what is below.

    While a parent may resize the node, its size is what is below: writes beyond the end may pass
    the node by (``Node.route``).
    """

    keeps_size: ClassVar[bool] = True
    _kept: int | None = None
    _follows = False

    def size_below(self) -> int:
        """Return the size of what is below, now."""
        raise NotImplementedError

    @property
    def length(self) -> int:
        """The size at the time of opening, or of the last request that changed it."""
        if self._follows or not self.keeps_size:
            return self.size_below()
        if self._kept is None:
            self._kept = self.size_below()
        return self._kept

    def set_perm(self, perm: Perm, shared: Perm, transaction: Transaction) -> None:
        """Take note of whether any parent may resize this node."""
        super().set_perm(perm, shared, transaction)
        if (follows := Perm.RESIZE in perm) is not self._follows:
            transaction.on_commit(lambda: self._follow(follows))

    def _follow(self, follows: bool) -> None:
        self._follows = follows
        self._kept = None if follows else self.size_below()
        self.changed()

    async def activate(self) -> None:
        """Ask anew: another machine may have resized the image."""
        await super().activate()
        self._kept = None
