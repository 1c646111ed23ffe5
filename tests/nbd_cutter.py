"""An NBD server in the loop of the test, which keeps a disk and cuts connections where it is told."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from pathlib import Path

from blockemu.nbd import wire

SIZE = 1 << 20


class Server:
    """An NBD server that keeps a disk, and cuts connections where it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.disk = bytearray(SIZE)
        self.connections = 0
        self.requests: list[int] = []
        self.cut: Callable[[int, int], bool] = lambda connection, message: False
        self.messages = 0  # sent on the newest connection
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def stop(self) -> None:
        """Be gone, with all connections."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number, self.connections, self.messages = self.connections, self.connections + 1, 0
        try:
            await self._talk(number, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    def _send(self, number: int, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Send a message, or hang up in its place."""
        message, self.messages = self.messages, self.messages + 1
        if self.cut(number, message):
            raise ConnectionError
        writer.write(data)

    async def _talk(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._send(number, writer, struct.pack(">QQH", wire.INIT_MAGIC, wire.OPTION_MAGIC, 3))
        await reader.readexactly(4)
        option = 0
        while option != wire.OPT_GO:
            _, option, length = wire.OPTION.unpack(await reader.readexactly(16))
            await reader.readexactly(length)
            head = wire.OPTION_REPLY
            if option == wire.OPT_GO:
                body = struct.pack(">HQH", 0, SIZE, wire.HAS_FLAGS | wire.SEND_FLUSH)
                self._send(number, writer, head.pack(wire.REPLY_MAGIC, option, 3, len(body)) + body)
                self._send(number, writer, head.pack(wire.REPLY_MAGIC, option, 1, 0))
            else:
                self._send(number, writer, head.pack(wire.REPLY_MAGIC, option, 1 << 31 | 1, 0))
        while True:
            await self._request(number, reader, writer)

    async def _request(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = await reader.readexactly(wire.REQUEST.size)
        _, _, command, cookie, offset, length = wire.REQUEST.unpack(head)
        data = await reader.readexactly(length) if command == wire.CMD_WRITE else b""
        if command == wire.CMD_DISC:
            raise ConnectionError
        self.requests.append(command)
        if data:
            self.disk[offset : offset + length] = data
        body = bytes(self.disk[offset : offset + length]) if command == wire.CMD_READ else b""
        self._send(number, writer, wire.SIMPLE.pack(wire.SIMPLE_MAGIC, 0, cookie) + body)
