"""A client has ten seconds for its handshake, whatever it is in the middle of."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from blockemu.clocks import SteppedClock
from blockemu.exports.nbd_server import HANDSHAKE_LIMIT, NbdServer, Security
from blockemu.host.pool import Pool
from blockemu.nbd import wire
from blockemu.schema.tls import QCryptoTLSCredsEndpoint
from blockemu.tls.credentials import TlsCredsAnon

FLAGS = struct.pack(">I", 3)
START_TLS = FLAGS + wire.OPTION.pack(wire.OPTION_MAGIC, wire.OPT_STARTTLS, 0)
GREETING = 18  # bytes
ACK = wire.OPTION_REPLY.size
ENDED = "The TLS connection was non-properly terminated."


class Nothing:
    """No exports."""

    def find(self, name: str) -> None:
        return None

    def all(self) -> list[Any]:
        return []


def credentials() -> TlsCredsAnon:
    made = TlsCredsAnon()
    made.endpoint = QCryptoTLSCredsEndpoint.SERVER
    made.complete(None)  # type: ignore[arg-type]  # it asks for nothing
    return made


async def everything(client: socket.socket) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    while part := await loop.sock_recv(client, 1 << 16):
        data += part
    return data


async def stall(path: Path, says: bytes, hears: int) -> tuple[list[str], bytes]:
    """Say something, wait for so many bytes, then let time pass; return what is told and heard."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    clock, loop = SteppedClock(), asyncio.get_running_loop()
    security = Security(credentials())
    server = NbdServer(Nothing(), [listener], Pool(), clock, security=security)  # type: ignore[arg-type]
    told: list[str] = []
    server.tell = told.append
    server.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        await loop.sock_connect(client, str(path))
        await loop.sock_sendall(client, says)
        heard = b""
        while len(heard) < hears:
            heard += await loop.sock_recv(client, hears - len(heard))
        clock.step(HANDSHAKE_LIMIT - 1)
        await asyncio.sleep(0)
        assert server._clients
        clock.step(1)
        rest = await everything(client)
        await server.close()
    return told, rest


@pytest.mark.parametrize(
    ("says", "hears", "told"),
    [
        (b"", GREETING, "Failed to read flags: Unexpected end-of-file before all data were read"),
        (FLAGS, GREETING, "Failed to read opts magic: Unexpected end-of-file before all data were read"),
        (START_TLS, GREETING + ACK, f"TLS handshake failed: {ENDED}"),
        (START_TLS + b"\x16\x03\x01\x10", GREETING + ACK, f"TLS handshake failed: {ENDED}"),
        (START_TLS + b"x" * 100, GREETING + ACK, "TLS handshake failed: An unexpected TLS packet was received."),
    ],
)  # fmt: skip
def test_who_stalls_is_hung_up_on(tmp_path: Path, says: bytes, hears: int, told: str) -> None:
    said, heard = asyncio.run(asyncio.wait_for(stall(tmp_path / "s", says, hears), 30))
    assert said == [f"option negotiation failed: {told}"]
    assert not heard
