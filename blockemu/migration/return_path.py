"""What the other side says while it reads a stream (source_return_path_thread)."""

import asyncio
import struct
from typing import Final

from blockemu.migration import wire
from blockemu.migration.channel import Way

_HEAD: Final = struct.Struct(">HH")
_MOST: Final = 512  # bytes of a message


class ReturnPath:
    """Reads messages; ``finished`` waits for the last."""

    def __init__(self, channel: Way) -> None:
        self._channel = channel
        self._task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> bool:
        """Read to the end; return whether the other side has got all."""
        data = b""
        while True:
            while len(data) >= _HEAD.size:
                kind, length = _HEAD.unpack_from(data)
                if length > _MOST:
                    return False
                if len(data) < _HEAD.size + length:
                    break
                body, data = data[_HEAD.size :][:length], data[_HEAD.size + length :]
                if kind == wire.REPLY_SHUT:
                    return int.from_bytes(body, "big") == 0
            more = await self._channel.read()
            if not more:
                return False
            data += more

    async def finished(self) -> bool:
        """Wait for the other side's last word; return whether it is a good one."""
        return await self._task

    def shut_down(self) -> None:
        """Let ``finished`` wait no longer."""
        self._channel.shut_down()

    def close(self) -> None:
        """Read no more."""
        self._task.cancel()
