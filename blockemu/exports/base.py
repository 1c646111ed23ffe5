"""What all exports are: a node that others reach, until it is let go of."""

import asyncio
from collections.abc import Callable
from typing import ClassVar

from blockemu.backend import Backend
from blockemu.graph import Graph
from blockemu.schema.exports import BlockExportOptions, BlockExportType


class Export:
    """A node that others reach.

    ``user_owned``: nobody has asked yet that it goes.  ``pinned``: the I/O thread that its node
    must stay in, empty for the program's own; None: any.
    """

    type: ClassVar[BlockExportType]

    def __init__(self, graph: Graph, options: BlockExportOptions, backend: Backend) -> None:
        self.graph = graph
        self.id = options.id
        self.backend = backend
        self.writable = bool(options.writable)
        self.user_owned = True
        self.pinned = (options.iothread or "") if options.fixed_iothread else None
        self.gone: Callable[[], None] = lambda: None  # called once nobody uses it any more

    @property
    def in_use(self) -> bool:
        """Whether somebody would notice if it went."""
        return False

    def shut_down(self) -> None:
        """Let those who use it go, and then itself; once is enough."""
        if not self.user_owned:
            return
        self.user_owned = False
        if not self.in_use:
            asyncio.get_running_loop().call_soon(self.gone)

    async def release(self) -> None:
        """Let go of the node."""
        await self.graph.remove(self.backend)
