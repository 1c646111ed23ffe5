"""Connections that are lost and come back, or do not, by the emulator's clock."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nbd_cutter import Server

from blockemu.backend import Backend
from blockemu.clocks import Clocks, SteppedClock
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.perm import Perm

SECOND = 1_000_000_000
TURNS = 200  # of the loop


class Disk:
    """A root on an NBD node, and the clock it goes by."""

    def __init__(self, folder: Path) -> None:
        self.server = Server(folder / "s.sock")
        self.clock = SteppedClock()
        self.emulator = Emulator(clocks=Clocks(self.clock))
        self.backend = Backend("guest", Perm.ALL, Perm.ALL)

    async def open(self, **options: Any) -> None:
        address = {"type": "unix", "path": str(self.server.path)}
        plain = {"driver": "nbd", "node-name": "n", "read-only": False, "server": address}
        node = await self.emulator.opener.open(plain | options)
        self.emulator.graph.insert(self.backend, node)

    async def read(self) -> bytes:
        data = bytearray(4096)
        await self.backend.pread(0, data)
        return bytes(data)

    async def until(self, true: Callable[[], bool]) -> None:
        """Let the loop turn until something is so."""
        while not true():
            await asyncio.sleep(0)

    async def pass_time(self, work: Awaitable[Any]) -> Any:
        """Let the clock go on to whatever is due, until the work is done.

        Between two steps there is time for a handshake and requests, all in this loop.
        """
        task = asyncio.ensure_future(work)
        while not task.done():
            for _ in range(TURNS):
                await asyncio.sleep(0)
            if not task.done() and self.clock.next_deadline is not None:
                self.clock.step(self.clock.next_deadline - self.clock.now())
        return task.result()


@asynccontextmanager
async def disk(folder: Path, **options: Any) -> AsyncIterator[Disk]:
    it = Disk(folder)
    await it.server.start()
    try:
        await it.open(**options)
        yield it
    finally:
        if it.backend.node is not None:
            await it.emulator.graph.remove(it.backend)
        await it.emulator.close()
        await it.server.stop()


def test_without_a_delay_a_lost_connection_fails_requests_until_there_is_a_new_one(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        async with disk(tmp_path) as it:
            await it.server.stop()
            for _ in range(3):
                with pytest.raises(OSError, match=r".*") as caught:
                    await it.read()
                assert caught.value.errno == errno.EIO
            await it.server.start()
            it.server.disk[:4] = b"back"
            while True:  # the attempt after a pause is the one that succeeds
                try:
                    data = await it.pass_time(it.read())
                    break
                except OSError:
                    await asyncio.sleep(0)
            assert data[:4] == b"back"

    asyncio.run(run())


def test_with_a_delay_requests_wait_and_then_fail(tmp_path: Path) -> None:
    async def run() -> None:
        async with disk(tmp_path, **{"reconnect-delay": 10}) as it:
            await it.server.stop()
            reads = [asyncio.ensure_future(it.read()) for _ in range(20)]
            await it.until(lambda: it.clock.next_deadline is not None)
            it.clock.step(9 * SECOND)
            for _ in range(50):
                await asyncio.sleep(0)
            assert not any(read.done() for read in reads)
            it.clock.step(1 * SECOND)
            for outcome in await asyncio.gather(*reads, return_exceptions=True):
                assert isinstance(outcome, OSError)
                assert outcome.errno == errno.EIO
            with pytest.raises(OSError, match=r".*"):  # the next ones fail at once
                await it.read()

    asyncio.run(run())


def test_with_a_delay_all_requests_are_made_again_on_the_new_connection(tmp_path: Path) -> None:
    async def run() -> None:
        async with disk(tmp_path, **{"reconnect-delay": 10}) as it:
            await it.server.stop()
            writes = [
                asyncio.ensure_future(it.backend.pwrite(i * 4096, bytes([i + 1]) * 4096))
                for i in range(40)
            ]
            await it.until(lambda: it.clock.next_deadline is not None)
            await it.server.start()
            await it.pass_time(asyncio.gather(*writes))
            for i in range(40):
                assert it.server.disk[i * 4096 : (i + 1) * 4096] == bytes([i + 1]) * 4096
            assert it.clock.now() < 10 * SECOND

    asyncio.run(run())


# Messages of a server: greeting, two refusals, what GO tells, its end, and the reply to each request.
@pytest.mark.parametrize("message", range(8))
@pytest.mark.parametrize("delay", [0, 10])
def test_a_cut_at_any_message_loses_nothing_that_was_acknowledged(
    tmp_path: Path, message: int, delay: int
) -> None:
    async def run() -> None:
        async with disk(tmp_path, **{"reconnect-delay": delay}) as it:
            # The first connection ends after its handshake, the second at the message.
            it.server.cut = lambda connection, at: (
                (connection == 0 and at >= 4) or (connection == 1 and at >= message)
            )
            acknowledged: dict[int, bytes] = {}
            failed = 0
            for i in range(6):
                data = bytes([i + 1]) * 4096
                try:
                    await it.pass_time(it.backend.pwrite(i * 4096, data))
                except OSError:
                    failed += 1
                else:
                    acknowledged[i] = data
            for i, data in acknowledged.items():
                assert it.server.disk[i * 4096 : (i + 1) * 4096] == data
            assert (failed == 0) == (delay > 0)

    asyncio.run(run())


def test_opening_tries_again_until_its_time_is_up(tmp_path: Path) -> None:
    async def run() -> None:
        it = Disk(tmp_path)
        with pytest.raises(QmpError, match=r"Failed to connect to '.*': No such file"):
            await it.pass_time(it.open(**{"open-timeout": 5}))
        assert it.clock.now() == 5 * SECOND
        await it.emulator.close()

    asyncio.run(run())


def test_opening_succeeds_once_the_server_is_there(tmp_path: Path) -> None:
    async def run() -> None:
        it = Disk(tmp_path)
        opening = asyncio.ensure_future(it.open(**{"open-timeout": 5}))
        await it.until(lambda: it.clock.next_deadline is not None)
        await it.server.start()
        await it.pass_time(opening)
        assert it.server.connections == 1
        await it.emulator.graph.remove(it.backend)
        await it.emulator.close()
        await it.server.stop()

    asyncio.run(run())


def test_who_cancels_what_is_in_flight_does_not_wait_for_the_delay(tmp_path: Path) -> None:
    async def run() -> None:
        async with disk(tmp_path, **{"reconnect-delay": 100}) as it:
            await it.server.stop()
            read = asyncio.ensure_future(it.read())
            await it.until(lambda: it.clock.next_deadline is not None)
            it.backend.node.cancel_in_flight()
            with pytest.raises(OSError, match=r".*"):
                await read
            assert it.clock.now() == 0

    asyncio.run(run())


def test_at_most_sixteen_requests_are_under_way(tmp_path: Path) -> None:
    async def run() -> None:
        async with disk(tmp_path) as it:
            most = 0
            answered = it.server._request

            async def watch(*arguments: Any) -> None:
                nonlocal most
                most = max(most, it.backend.node._in_flight)
                await answered(*arguments)

            it.server._request = watch  # type: ignore[method-assign]
            await asyncio.gather(*(it.read() for _ in range(64)))
            assert most == 16
            assert len(it.server.requests) == 64

    asyncio.run(run())
