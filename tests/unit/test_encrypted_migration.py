"""A migration's encrypted channel: what is left to say when the other side has gone."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from blockemu.migration.encrypted import EncryptedChannel


class Wire:
    """One end of a channel in memory."""

    error = None

    def __init__(self, incoming: asyncio.Queue[bytes], outgoing: asyncio.Queue[bytes]) -> None:
        self._incoming, self._outgoing = incoming, outgoing

    async def read(self) -> bytes:
        return await self._incoming.get()

    async def write(self, data: bytes) -> None:
        await self._outgoing.put(data)


def anonymous(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("aNULL:@SECLEVEL=0")
    return context


async def test_what_is_written_after_the_other_sides_end_is_an_error_to_be_asked_for():
    one, other = asyncio.Queue[bytes](), asyncio.Queue[bytes]()
    wires: tuple[Any, Any] = Wire(one, other), Wire(other, one)
    here = EncryptedChannel(wires[0], anonymous(ssl.PROTOCOL_TLS_CLIENT))
    there = EncryptedChannel(wires[1], anonymous(ssl.PROTOCOL_TLS_SERVER), server=True)
    await asyncio.gather(here.handshake(), there.handshake())
    await here.write(b"state")
    assert await there.read() == b"state"
    assert (here.error, here.sent) == (None, 5)

    one.put_nowait(b"")
    assert await here.read() == b""
    await here.write(b"more")
    assert "Input/output error" in str(here.error)
    assert here.sent == 5
