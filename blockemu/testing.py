"""Emulators for tests: in this process, or as the real program.

    async with running() as emu:
        await emu.execute("blockdev-add", driver="null-co", node_name="n", size=1 << 20)
        await emu.write("n", 0, b"hello")
        assert await emu.read("n", 0, 5) == b"hello"

Both kinds speak real QMP over a real socket, by qemu.qmp's client, which is ``emu.qmp``.
"""

import asyncio
import base64
import random
import re
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from qemu.qmp import EventListener, ExecInterruptedError, QMPClient

from blockemu.backend import Backend
from blockemu.chardevs import SocketChardev
from blockemu.clocks import Clocks, RealClock, SteppedClock
from blockemu.crash_points import STATUS as CRASHED
from blockemu.crashes import crashes_of_all
from blockemu.daemon import Daemon
from blockemu.emulator import Emulator
from blockemu.host.sockets import FdAddress
from blockemu.machine.building import build
from blockemu.machine.guest import GuestDisk
from blockemu.machine.models import model
from blockemu.perm import Perm
from blockemu.qmp_server.profile import ALL, Profile
from blockemu.records import record

Accept = Callable[[Mapping[str, Any]], bool]
Event = dict[str, Any]
TIMEOUT = 30.0  # seconds; what takes longer hangs


class Subject:
    """What is tested, and the QMP client that is connected to it.

    ``events`` are those that came and that nobody has waited for.
    """

    def __init__(self, qmp: QMPClient) -> None:
        self.qmp = qmp
        self.events: list[Event] = []
        self._listener = EventListener()
        qmp.register_listener(self._listener)

    async def execute(
        self, command: str, arguments: Mapping[str, Any] | None = None, /, **members: Any
    ) -> Any:
        """Execute a command; a ``_`` in the names of ``members`` is a ``-``.

        Raises:
            qemu.qmp.ExecuteError: it failed.
        """
        given = dict(arguments or {})
        given |= {name.replace("_", "-"): value for name, value in members.items()}
        return await self.qmp.execute(command, given or None)

    async def event(self, name: str, accept: Accept = lambda data: True) -> Event:
        """Wait for an event whose data ``accept`` takes; return it.  Others are kept."""
        self._collect()
        seen = 0
        async with asyncio.timeout(TIMEOUT):
            while True:
                for i, event in enumerate(self.events[seen:], seen):
                    if event["event"] == name and accept(event.get("data", {})):
                        return self.events.pop(i)
                seen = len(self.events)
                self.events.append(dict(await self._listener.get()))

    async def job(self, name: str, status: str = "concluded") -> Event:
        """Wait until a job has a status."""
        return await self.event(
            "JOB_STATUS_CHANGE", lambda data: data["id"] == name and data["status"] == status
        )

    async def guest_io(self, device: str, operation: str, /, **members: Any) -> bytes:
        """Ask something of a disk as its guest would; return what was read.

        ``members`` are those of x-emu-guest-io.

        Raises:
            OSError: the guest was told of a failure; only its text is known.
        """
        reply = await self.execute("x-emu-guest-io", device=device, operation=operation, **members)
        end = await self.event("X_EMU_GUEST_IO", lambda data: data["request"] == reply["request"])
        data = end["data"]
        if "error" in data:
            raise OSError(data["error"])
        return base64.b64decode(data.get("data", ""))

    def _collect(self) -> None:
        self.events += [dict(event) for event in self._listener.clear()]


class Running(Subject):
    """An emulator in this process.

    ``clocks.virtual`` moves only by its ``step``, and so does ``clocks.realtime`` where
    ``running(stepped=True)`` said so.
    """

    def __init__(self, qmp: QMPClient, daemon: Daemon) -> None:
        super().__init__(qmp)
        self.daemon = daemon

    @property
    def emulator(self) -> Emulator:
        """The emulator itself."""
        return self.daemon.emu

    @property
    def clocks(self) -> Clocks:
        """Its clocks."""
        return self.daemon.emu.clocks

    def step(self, nanoseconds: int) -> None:
        """Let time pass on all clocks that are stepped."""
        clocks = self.clocks
        for clock in {id(c): c for c in (clocks.realtime, clocks.virtual)}.values():
            if isinstance(clock, SteppedClock):
                clock.step(nanoseconds)

    @asynccontextmanager
    async def guest(self, node: str, perm: Perm = Perm.CONSISTENT_READ) -> AsyncIterator[Backend]:
        """Give a root on a node or device, as a device has one."""
        backend = Backend("", perm, Perm.ALL)
        self.emulator.graph.insert(backend, self.emulator.graph.lookup(node))
        try:
            yield backend
        finally:
            await self.emulator.graph.remove(backend)

    def disk(self, device: str) -> GuestDisk:
        """Return what a guest has of a device's disk; its requests keep to rerror and werror."""
        return self.emulator.guest.disk(device)

    async def read(self, node: str, offset: int, length: int) -> bytes:
        """Read as a guest."""
        buffer = bytearray(length)
        async with self.guest(node) as backend:
            await backend.pread(offset, buffer)
        return bytes(buffer)

    async def write(self, node: str, offset: int, data: bytes) -> None:
        """Write as a guest."""
        async with self.guest(node, Perm.WRITE) as backend:
            await backend.pwrite(offset, data)


@asynccontextmanager
async def running(
    *,
    profile: str | Profile = ALL,
    stepped: bool = False,
    plans: bool = True,
    self_check: bool = True,
    machine: str = "",
) -> AsyncIterator[Running]:
    """Run an emulator in this process.

    ``profile``: as for ``--compat``.  ``stepped``: real time, by which jobs go, is stepped too.
    ``machine``: as for ``-machine``; one such as "pc" has buses for devices.
    ``self_check``: a reply or event that does not fit its own type is an error, and so is what
    ``blockemu.consistency`` finds.
    """
    clocks = Clocks(SteppedClock() if stepped else RealClock(), SteppedClock())
    daemon = Daemon(
        profile=Profile.parse(profile) if isinstance(profile, str) else profile,
        clocks=clocks,
        plans=plans,
        self_check=self_check,
    )
    daemon.emu.end = _end
    ours, theirs = socket.socketpair()
    chardev = SocketChardev(FdAddress(str(theirs.detach())), server=False)
    daemon.chardevs.add("testing", chardev)
    daemon.serve(daemon.chardevs.take("testing"))
    qmp = QMPClient("blockemu.testing")
    if machine:
        await build(daemon.emu.devices, daemon.emu.drives, model(machine))
    closing = asyncio.create_task(_close_when_stopped(daemon))
    try:
        await qmp.connect(ours)
        yield Running(qmp, daemon)
        assert not daemon.faults, daemon.faults
    finally:
        daemon.stopped.set()
        await closing
        await _hang_up(qmp)
        ours.close()


class Ended(Exception):
    """A daemon would have ended here: what its disks say contradicts itself (blkverify)."""


def _end() -> NoReturn:
    raise Ended("a daemon would have ended here")


async def _close_when_stopped(daemon: Daemon) -> None:
    await daemon.stopped.wait()
    await daemon.close()


@record(frozen=True)
class CrashState:
    """What a power cut may have left.

    ``at``: how many changes to files had been asked for by then.  ``files``: contents by name.
    """

    at: int
    files: Mapping[str, bytes]


async def crash_states(
    story: Callable[[Running], Awaitable[None]],
    *,
    bound: int = 8,
    seed: int = 0,
    machine: str = "",
) -> AsyncIterator[CrashState]:
    """Run a story once, to its orderly end; then yield all that power cuts may have left of it.

    While a state is looked at, the files that the story opened are in that state; in the end they
    are as the story left them.  A file counts from the moment it is opened.  Of the changes since a
    file's last flush a cut leaves all, or all but one, or one, or two, or any, or part of the last:
    at most ``bound`` choices for each change, made by ``seed``.
    """
    async with running(machine=machine) as emu:
        points = await emu.emulator.record_changes(history=True)
        await story(emu)
    journal = points.journal
    ends = {path: Path(path).read_bytes() for path in journal.contents}
    try:
        for crash in crashes_of_all(journal.contents, journal.log, bound, random.Random(seed)):
            files = {path: bytes(content) for path, content in crash.contents.items()}
            _put(files)
            yield CrashState(crash.at, files)
    finally:
        _put(ends)


def _put(files: Mapping[str, bytes]) -> None:
    for path, content in files.items():
        Path(path).write_bytes(content)


class Spawned(Subject):
    """The real program in a process of its own; ``folder`` is its working directory.

    ``output`` is what it wrote to standard output.
    """

    def __init__(self, qmp: QMPClient, process: asyncio.subprocess.Process, folder: Path) -> None:
        super().__init__(qmp)
        self.process = process
        self.folder = folder
        self.output = ""
        self._grown = asyncio.Event()
        self._reader = asyncio.create_task(self._read_output())

    async def _read_output(self) -> None:
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(1 << 16):
            self.output += data.decode()
            self._grown.set()

    async def qemu_io(self, node: str, command: str, until: str) -> str:
        """Run a qemu-io command; return what it printed, which ends where ``until`` matches."""
        start = len(self.output)
        refused = await self.execute(
            "human-monitor-command", command_line=f'qemu-io {node} "{command}"'
        )
        if refused:
            raise OSError(refused.strip())
        async with asyncio.timeout(TIMEOUT):
            while not (end := re.search(until, self.output[start:], re.MULTILINE)):
                self._grown.clear()
                await self._grown.wait()
        return self.output[start : start + end.end()]

    async def read(self, node: str, offset: int, length: int) -> bytes:
        """Read as a guest."""
        output = await self.qemu_io(node, f"read -v {offset} {length}", _ENDED)
        _check(output, "read")
        rows = re.findall(r"^[0-9a-f]{8,}: ((?: ?[0-9a-f]{2}){1,16})", output, re.MULTILINE)
        return b"".join(bytes.fromhex(row) for row in rows)

    async def write(self, node: str, offset: int, data: bytes) -> None:
        """Write as a guest."""
        source = self.folder / "guest-data"
        source.write_bytes(data)
        command = f"write -s {source} {offset} {len(data)}"
        _check(await self.qemu_io(node, command, _ENDED), "wrote")
        source.unlink()

    async def crash(self, **members: Any) -> None:
        """Have the power go, at once; ``members`` are those of x-emu-crash."""
        await self.crashes_in(self.execute("x-emu-crash", **members))

    async def crashes_in(self, work: Awaitable[object]) -> None:
        """Await some work, in which the program meets a point that x-emu-crash was told of.

        Raises:
            AssertionError: the program ended in another way; TimeoutError: it did not.
        """
        with suppress(EOFError, ConnectionError, ExecInterruptedError):
            await work
        async with asyncio.timeout(TIMEOUT):
            status = await self.process.wait()
        assert status == CRASHED, f"exit status {status}"

    async def finish(self) -> int:
        """Quit; return the exit status."""
        if self.process.returncode is None and self.qmp.runstate.name == "RUNNING":
            await self.execute("quit")
        async with asyncio.timeout(TIMEOUT):
            status = await self.process.wait()
            await self._reader
        return status


_ENDED = r"^.* ops/sec\)\n|^.*(?:failed|error|argument|range|aligned|No such).*\n"


def _check(output: str, done: str) -> None:
    if not re.search(rf"^{done} ", output, re.MULTILINE):
        raise OSError(output.strip())


@asynccontextmanager
async def spawned(*options: str, folder: Path | None = None) -> AsyncIterator[Spawned]:
    """Run the program with some options of its command line, in ``folder`` or a temporary one."""
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryDirectory() as temporary, ours, theirs:
        where = folder or Path(temporary)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "blockemu", "--qmp", f"fd:{theirs.fileno()}", *options),
            pass_fds=[theirs.fileno()],
            cwd=where,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        theirs.close()
        qmp = QMPClient("blockemu.testing")
        try:
            await qmp.connect(ours)
            subject = Spawned(qmp, process, where)
            yield subject
            await subject.finish()
        finally:
            await _hang_up(qmp)
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _hang_up(qmp: QMPClient) -> None:
    """Disconnect, whichever side was first."""
    with suppress(EOFError, OSError):  # the other side was
        await qmp.disconnect()
