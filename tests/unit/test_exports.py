"""When exports go."""

from pathlib import Path

import pytest
from fakes import Machine


@pytest.mark.parametrize(
    ("command", "member"), [("block-export-del", "id"), ("nbd-server-remove", "name")]
)
async def test_an_export_without_clients_has_gone_before_the_reply(
    tmp_path: Path, command: str, member: str
) -> None:
    async with Machine() as machine:
        machine.disk("n")
        address = {"type": "unix", "data": {"path": str(tmp_path / "s")}}
        await machine("nbd-server-start", addr=address)
        await machine("block-export-add", type="nbd", id="e", node_name="n")
        machine.news()
        await machine(command, **{member: "e"})
        assert machine.news() == ["BLOCK_EXPORT_DELETED", "reply"]
        assert await machine("block-export-add", type="nbd", id="e", node_name="n") is None
