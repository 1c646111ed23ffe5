"""The internal snapshot that ``-l`` asks for."""

import errno
from typing import Any

from blockemu import snapshots
from blockemu.backend import Backend
from blockemu.errors import QmpError
from blockemu.node import Node
from blockemu.optlist import parse_options
from blockemu.programs.img.program import Program
from blockemu.programs.img.refusals import BadSnapshotParameter, SnapshotNotLoaded
from blockemu.records import record

_PREFIX = "snapshot."
_TYPES = {"snapshot.id": "string", "snapshot.name": "string"}


class NeitherGiven(QmpError):
    """Nothing says which snapshot."""

    template = "snapshot_id and name are both NULL"


@record(frozen=True)
class SnapshotChoice:
    """Which snapshot: ``exact`` by id or name or both, or else by either."""

    exact: bool
    ident: str | None
    name: str | None

    @classmethod
    def read(cls, program: Program, text: str) -> "SnapshotChoice":
        """Read the argument of ``-l``.

        Raises:
            BadSnapshotParameter: it makes none.

        """
        if not text.startswith(_PREFIX):
            return cls(exact=False, ident=text, name=text)
        try:
            found = parse_options(text, "", _TYPES, program.warn)
        except QmpError as e:
            program.report(e)
            raise BadSnapshotParameter(text) from e
        return cls(exact=True, ident=found.get("snapshot.id"), name=found.get("snapshot.name"))

    async def load(self, image: Backend) -> None:
        """Let the image read as it was then.

        Raises:
            SnapshotNotLoaded: there is no such snapshot.

        """
        try:
            if self.exact:
                await self._load_exactly(image.node)
            else:
                await snapshots.load_tmp(image.node, self.name or "")
        except QmpError as e:
            raise SnapshotNotLoaded(e) from e

    async def _load_exactly(self, node: Node[Any]) -> None:
        if self.ident is None and self.name is None:
            raise NeitherGiven
        if type(node).snapshot_load_tmp is Node.snapshot_load_tmp:
            raise snapshots.NoShowing(node.driver, "", errno=errno.ENOTSUP)
        await node.snapshot_load_tmp(self.ident, self.name)
