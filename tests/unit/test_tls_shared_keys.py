"""Keys that both sides know: used where Python's ssl can, else refused in so many words."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from blockemu.clocks import SteppedClock
from blockemu.errors import QmpError
from blockemu.objects.object_add import Objects
from blockemu.objects.qom import Tree
from blockemu.qmp_server.qapi import visit
from blockemu.schema.objects import ObjectOptions
from blockemu.tls import session, shared_keys
from blockemu.tls.credentials import credentials

KEYS = "alice:00112233445566778899aabbccddeeff\nbob:ff112233445566778899aabbccddeeff\n"
FORGED = "alice:ff112233445566778899aabbccddeeff\ncarol:00112233445566778899aabbccddeeff\n"


def added(objects: Objects, name: str, folder: Path, **members: str) -> None:
    given = {"qom-type": "tls-creds-psk", "id": name, "dir": str(folder)} | members
    objects.add(visit(ObjectOptions, given))


async def meet(objects: Objects, client: str) -> list[str]:
    """Have both ends of a connection agree; return what either has to say."""
    ours, theirs = socket.socketpair()
    server = credentials(objects.find, "server", "server")
    visitor = credentials(objects.find, client, "client")

    async def serve() -> str:
        try:
            stream = await session.accept(ours, server, objects.find)
        except QmpError as e:
            ours.close()
            return str(e)
        stream.send(memoryview(b"welcome"))
        return "served"

    async def visiting() -> str:
        try:
            stream = await session.connect(theirs, visitor, None)
        except QmpError as e:
            return str(e)
        buffer = bytearray(20)
        count = 0
        while not count:
            await asyncio.sleep(0)
            try:
                count = stream.recv_into(memoryview(buffer))
            except BlockingIOError:
                continue
        return buffer[:count].decode()

    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        return list(await asyncio.gather(serve(), visiting()))


@pytest.mark.parametrize(
    ("client", "said"),
    [
        ("alice", ["served", "welcome"]),
        ("bob", ["served", "welcome"]),
        ("forged", None),
        ("carol", None),
    ],
)
def test_those_who_know_a_key_are_served(
    tmp_path: Path, client: str, said: list[str] | None
) -> None:
    for folder, keys in (("true", KEYS), ("false", FORGED)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "keys.psk").write_text(keys)
    objects = Objects(Tree(), SteppedClock())
    folder = tmp_path / ("true" if said else "false")
    name = {"forged": "alice"}.get(client, client)
    if not shared_keys.SUPPORTED:
        with pytest.raises(QmpError, match=r"^TLS credentials of type tls-creds-psk need Python"):
            added(objects, client, folder, username=name)
        return
    added(objects, "server", tmp_path / "true", endpoint="server")
    added(objects, client, folder, username=name)
    refused = [
        "TLS handshake failed: An illegal parameter has been received.",
        "TLS handshake failed: The TLS connection was non-properly terminated.",
    ]
    assert asyncio.run(meet(objects, client)) == (said or refused)
