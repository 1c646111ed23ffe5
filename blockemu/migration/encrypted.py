"""A migration's bytes, encrypted on their way (migration/tls.c)."""

import asyncio
import errno
import os
import ssl
from functools import partial
from typing import Final

from blockemu.errors import HostError
from blockemu.migration.channel import Channel
from blockemu.tls.credentials import Find, credentials
from blockemu.tls.session import as_client, as_server
from blockemu.tls.stream import RECORD, Records

_AT_ONCE: Final = 1 << 14  # bytes of a record


class NotEncrypted(HostError):
    """(why): the channel below is lost."""

    template = "Cannot write to TLS channel: {}"


class EncryptedChannel(Records):
    """What a channel carries, encrypted; it has the channel's faces."""

    def __init__(
        self,
        channel: Channel,
        context: ssl.SSLContext,
        *,
        hostname: str | None = None,
        server: bool = False,
    ) -> None:
        super().__init__(context, hostname=hostname, server=server)
        self._channel = channel
        self._writing = asyncio.Lock()  # records go out in the order in which they were made
        self._ended = False  # writing met the other side's end, which reading had come to before
        self.sent = 0  # bytes, in clear text

    @property
    def error(self) -> HostError | None:
        """What writing met; whatever it is QEMU does not tell more of it."""
        return NotEncrypted(os.strerror(errno.EIO), errno=errno.EIO) if self._lost else None

    @property
    def _lost(self) -> bool:
        return self._ended or self._channel.error is not None

    @property
    def is_socket(self) -> bool:
        """Whether the other side's end is announced."""
        return self._channel.is_socket

    async def _receive(self) -> bytes:
        return await self._channel.read()

    async def _transmit(self, data: bytes) -> None:
        await self._channel.write(data)

    async def read(self) -> bytes:
        """Wait for bytes; none is the end."""
        while True:
            try:
                return self.tls.read(RECORD)
            except ssl.SSLWantReadError:
                self._feed(await self._receive())
            except ssl.SSLError:  # the end, announced or not, or nothing that could be read
                return b""

    async def write(self, data: bytes) -> None:
        """Send; what goes wrong is in ``error``."""
        view = memoryview(data)
        async with self._writing:
            while len(view) and not self._lost:
                try:
                    taken = self.tls.write(view[:_AT_ONCE])
                except ssl.SSLError:
                    self._ended = True
                    return
                await self._transmit_waiting()
                self.sent += taken
                view = view[taken:]

    def shut_down(self) -> None:
        """Let whoever waits go on, and send and receive no more."""
        self._channel.shut_down()

    def close(self) -> None:
        """Let go of what carries it."""
        self._channel.close()

    async def finish(self) -> None:
        """Say that this is all, and let go when it was sent."""
        await self._channel.finish()


async def towards(
    channel: Channel, name: str, find: Find, hostname: str | None
) -> EncryptedChannel:
    """Encrypt a channel to the other side by the credentials of a name.

    ``hostname`` is whose certificate it should be.  Raises QmpError.
    """
    creds = credentials(find, name, "client")
    return await as_client(partial(EncryptedChannel, channel), creds, hostname)


async def from_there(channel: Channel, name: str, find: Find, authz: str) -> EncryptedChannel:
    """Encrypt a channel from the other side; ``authz`` says who may come.  Raises QmpError.

    As in QEMU nobody who has to show a certificate may come unless somebody is asked.
    """
    creds = credentials(find, name, "server")
    return await as_server(partial(EncryptedChannel, channel), creds, find, authz)
