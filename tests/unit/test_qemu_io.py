"""qemu-io's commands on a disk in memory; what is expected was recorded from QEMU 7.2."""

import asyncio
import errno
import os
import re
from types import SimpleNamespace
from typing import Any

import pytest

from blockemu.backend import Backend
from blockemu.blockdev_options import NodeOptions
from blockemu.clocks import Clocks, SteppedClock
from blockemu.extents import ALLOCATED, DATA, Extents
from blockemu.graph import Graph
from blockemu.host.pool import Pool
from blockemu.node import Flags, Node, Write
from blockemu.perm import Perm
from blockemu.qemu_io.interpreter import Interpreter, Output

SIZE = 1 << 20
READ_USAGE = (
    "read [-abCqv] [-P pattern [-s off] [-l len]] off len -- reads a number of bytes at a specified"
    " offset\n"
)


class Disk(Node[NodeOptions]):
    """Bytes in memory, of which every other 64 KiB are allocated; requests can be held up."""

    def __init__(self, clocks: Clocks, *, read_only: bool = False) -> None:
        services: Any = SimpleNamespace(pool=Pool(), clocks=clocks)
        super().__init__(
            "disk", "memory", NodeOptions(), Flags(read_only=read_only, unmap=True), services
        )
        self.data = bytearray(SIZE)
        self.calls: list[tuple[Any, ...]] = []
        self.gate: asyncio.Future[None] | None = None
        self.failure = 0

    @property
    def length(self) -> int:
        return len(self.data)

    async def _pass(self, *call: Any) -> None:
        self.calls.append(call)
        if self.gate is not None:
            await self.gate
        if self.failure:
            raise OSError(self.failure, os.strerror(self.failure))

    async def pread(self, offset: int, buf: memoryview) -> None:
        await self._pass("read", offset, len(buf))
        buf[:] = self.data[offset : offset + len(buf)]

    async def pwrite(self, offset: int, buf: memoryview, flags: int) -> None:
        await self._pass("write", offset, len(buf), flags)
        self.data[offset : offset + len(buf)] = buf

    async def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        await self._pass("zero", offset, length, flags)
        self.data[offset : offset + length] = bytes(length)

    async def discard(self, offset: int, length: int) -> None:
        await self._pass("discard", offset, length)

    async def flush(self) -> None:
        await self._pass("flush")

    async def block_status(self, offset: int, length: int) -> Extents:
        step = 1 << 16
        end = min((offset // step + 1) * step, SIZE)
        status = DATA | ALLOCATED if offset // step % 2 else 0
        return Extents.one(offset, end - offset, status)


class Shell:
    """An interpreter on a disk, and what it printed."""

    def __init__(self, **flags: bool) -> None:
        self.clocks = Clocks(SteppedClock())
        self.disk = Disk(self.clocks, **flags)
        self.graph = Graph()
        self.graph.add(self.disk)
        self.backend = Backend("drive", Perm.CONSISTENT_READ)
        self.graph.insert(self.backend, self.disk)
        self.text = {"out": "", "err": "", "report": ""}
        self.tasks: set[asyncio.Task[None]] = set()
        self.io = self.interpreter(self.backend)

    def interpreter(self, backend: Backend | None) -> Interpreter:
        return Interpreter(
            backend,
            Output(*map(self._writer, self.text)),
            graph=self.graph,
            clocks=self.clocks,
            tasks=self.tasks,
        )

    def _writer(self, stream: str) -> Any:
        def write(text: str) -> None:
            self.text[stream] += text

        return write

    async def __call__(self, line: str) -> tuple[int, str]:
        """Run a line; return its code and what it printed, each part under its stream's name."""
        code = await self.io.run(line)
        return code, self.taken()

    def taken(self) -> str:
        parts = [f"{name}: {text}" for name, text in self.text.items() if text]
        self.text = dict.fromkeys(self.text, "")
        return "".join(parts)


@pytest.fixture
async def shell():
    shell = Shell()
    yield shell
    await shell.io.settle()
    shell.disk.pool.close()


def report(verb: str, count: int, offset: int) -> str:
    """Return what is printed about a request, as a pattern."""
    rate = r"[0-9.]+ ([KMGTPE]iB|bytes)/sec and [0-9.]+ ops/sec"
    return rf"{verb} {count}/{count} bytes at offset {offset}\n[0-9.]+ ([KMGTPE]iB|bytes), 1 ops; 00\.00 sec \({rate}\)\n"


REFUSED = [
    ("bogus", 'err: command "bogus" not found\n'),
    ("read", "err: bad argument count 0 to read, expected at least 2 arguments\n"),
    ("r", "err: bad argument count 0 to r, expected at least 2 arguments\n"),
    ("length 1", "err: bad argument count 1 to length, expected 0 arguments\n"),
    ("sleep", "err: bad argument count 0 to sleep, expected 1 arguments\n"),
    ("truncate", "err: bad argument count 0 to truncate, expected between 1 and 3 arguments\n"),
    ("alloc 1 2 3", "err: bad argument count 3 to alloc, expected between 1 and 2 arguments\n"),
    ("read -x 0 1", f"out: {READ_USAGE}err: read: invalid option -- 'x'\n"),
    ("r -P 0 -P", f"out: {READ_USAGE}err: r: option requires an argument -- 'P'\n"),
    ("read 0 1 2", f"out: {READ_USAGE}"),
    ("read -l 1 0 1", f"out: {READ_USAGE}"),
    ("read 0 zz", "out: Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- zz\n"),
    ("read zz yy", "out: Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- zz\n"),
    ("read 0 9E", "out: Parsing error: argument too large -- 9E\n"),
    ("read 0 3G", "out: length cannot exceed 2147483136, given 3G\n"),
    ("read -P 300 0 1", "out: 300 is not a valid pattern byte\n"),
    ("read -P 1 -l 2 -s 2 0 3", "out: pattern verification range exceeds end of read data\n"),
    ("read -P 1 -s 4 0 3", "out: pattern verification range exceeds end of read data\n"),
    ("read -b 1 1", "out: 1 is not a sector-aligned value for 'offset'\n"),
    ("read -b 512 1", "out: 1 is not a sector-aligned value for 'count'\n"),
    ("read -b 0 512", "out: read failed: Operation not supported\n"),
    ("read 1M 1", "out: read failed: Input/output error\n"),
    ("readv 1M 1", "out: readv failed: Input/output error\n"),
    ("readv 0 1k zz", "out: Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- zz\n"),
    ("readv 0 1k 3G", "out: Argument '3G' exceeds maximum size 2147483136\n"),
    ("readv 0 2147483136 512", "out: The total number of bytes exceed the maximum size 2147483136\n"),
    ("write -z -P 1 0 1", "out: Only one of -z, -P, and -s can be specified at the same time\n"),
    ("write -n 0 1", "out: -n requires -z to be specified\n"),
    ("write -u 0 1", "out: -u requires -z to be specified\n"),
    ("write -b -z 0 1", "out: -b and -z cannot be specified at the same time\n"),
    ("write -f -c 0 512", "out: -f and -b or -c cannot be specified at the same time\n"),
    ("write -c 1 512", "out: 1 is not a sector-aligned value for 'offset'\n"),
    ("write -c 0 512", "out: write failed: Operation not supported\n"),
    ("write -b 0 512", "out: write failed: Operation not supported\n"),
    ("write 0 3G", "out: length cannot exceed 2147483136 without -n, given 3G\n"),
    ("write -z -n 0 3G", "out: write failed: Input/output error\n"),
    ("write -s /nope 0 1", "err: /nope: No such file or directory\n"),
    ("write -s /dev/null 0 1", "err: /dev/null: file is empty\n"),
    ("writev 1M 1", "out: writev failed: Input/output error\n"),
    ("aio_write -z 0 1k 1k", "out: -z supports only a single length parameter\n"),
    ("aio_write -u 0 1k", "out: -u requires -z to be specified\n"),
    ("aio_read -i", "err: bad argument count 1 to aio_read, expected at least 2 arguments\n"),
    ("discard 0 1 2", "out: discard [-Cq] off len -- discards a number of bytes at a specified offset\n"),
    ("discard 0 3G", "out: length cannot exceed 2147483136, given 3G\n"),
    ("discard 1M 1", "out: discard failed: Input/output error\n"),
    ("alloc zz", "out: Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- zz\n"),
    ("truncate zz", "out: Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- zz\n"),
    ("truncate -m off 8E", "out: Parsing error: argument too large -- -m\n"),
    ("truncate -m off", "out: truncate [-m prealloc_mode] off -- truncates the current file at the given offset\n"),
    ("truncate -m foo 1", "report: Invalid preallocation mode 'foo'\n"),
    ("truncate 1", "report: Image format driver does not support resize\n"),
    ("sleep x", "out: x is not a valid number\n"),
    ("sigraise 99", "out: signal argument '99' is too large to be a valid signal\n"),
    ("help foo", "out: command foo not found\n"),
    ("reopen -r -w", "report: Only one -r/-w option may be given\n"),
    ("reopen -c foo", "report: Invalid cache option: foo\n"),
    ("reopen x", "out: reopen [(-r|-w)] [-c cache] [-o options] -- reopens an image with new options\n"),
    ("reopen -o read-only=on -r", "report: Cannot set both -r/-w and 'read-only'\n"),
    ("reopen -o cache.direct=on -c none", "report: Cannot set both -c and the cache options\n"),
    ("break a b", "out: Could not set breakpoint: Operation not supported\n"),
    ("remove_break a", "out: Could not remove breakpoint a: Operation not supported\n"),
    ("resume a", "out: Could not resume request: Operation not supported\n"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "text"), REFUSED)
async def test_a_line_that_cannot_be_done_is_refused_in_qemus_words(shell, line, text):
    code, printed = await shell(line)
    assert printed == text
    assert code < 0


async def test_an_empty_line_does_nothing(shell):
    assert await shell("") == (0, "")
    assert await shell("   ") == (0, "")


@pytest.mark.parametrize(
    ("line", "verb", "count", "offset"),
    [
        ("read 0 64k", "read", 65536, 0),
        ("read 100 0", "read", 0, 100),
        ("r -p 0x200  512", "read", 512, 512),
        ("readv 1k 1k 2k", "read", 3072, 1024),
        ("write 0 1.5k", "wrote", 1536, 0),
        ("write -z 0 1k", "wrote", 1024, 0),
        ("writev -f 0 1 2 3", "wrote", 6, 0),
        ("discard 0 1k", "discard", 1024, 0),
    ],
)
async def test_a_request_is_reported(shell, line, verb, count, offset):
    code, printed = await shell(line)
    assert re.fullmatch("out: " + report(verb, count, offset), printed)
    assert code == 0


@pytest.mark.parametrize("line", ["read -q 0 1", "readv -qv 0 1", "write -q 0 1", "discard -q 0 1"])
async def test_quiet_requests_print_nothing(shell, line):
    assert await shell(line) == (0, "")


async def test_what_is_written_is_the_pattern_or_cd(shell):
    await shell("write -q -P 0x41 0 4")
    await shell("writev -q 4 2 2")
    assert shell.disk.data[:9] == b"AAAA\xcd\xcd\xcd\xcd\0"


async def test_a_pattern_file_is_repeated(shell, tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    await shell(f"write -q -s {tmp_path}/f 0 8")
    assert shell.disk.data[:9] == b"abcabcab\0"


async def test_write_options_become_flags(shell):
    await shell("write -q -z -u -f -n 0 4k")
    assert shell.disk.calls[0] == ("zero", 0, 4096, Write.MAY_UNMAP | Write.FUA | Write.NO_FALLBACK)


async def test_a_mismatch_is_told_and_the_read_reported_all_the_same(shell):
    await shell("write -q -P 65 0 512")
    code, printed = await shell("read -P 65 0 1k")
    assert code == -errno.EINVAL
    head = r"out: Pattern verification failed at offset 0, 1024 bytes\n"
    assert re.fullmatch(head + report("read", 1024, 0), printed)
    assert await shell("read -q -P 65 -s 2 -l 510 0 1k") == (0, "")
    assert await shell("read -q -P 65 -s 510 -l 4 0 1k") == (
        -errno.EINVAL,
        "out: Pattern verification failed at offset 510, 4 bytes\n",
    )


async def test_a_read_is_dumped_before_its_report(shell):
    _, printed = await shell("read -v 16 1")
    assert printed.startswith("out: 00000010:  00  .\nread 1/1 bytes at offset 16\n")


async def test_a_failed_request_tells_the_hosts_error(shell):
    shell.disk.failure = errno.ENOSPC
    assert await shell("write 0 1") == (
        -errno.ENOSPC,
        "out: write failed: No space left on device\n",
    )
    assert await shell("flush") == (-errno.ENOSPC, "")


async def test_writes_extend_the_backends_permissions_for_good(shell):
    await shell("read -q 0 1")
    assert shell.backend.perm == Perm.CONSISTENT_READ
    await shell("write -q 0 1")
    assert shell.backend.perm == Perm.CONSISTENT_READ | Perm.WRITE


async def test_a_read_only_node_is_not_written():
    shell = Shell(read_only=True)
    code, printed = await shell("write 0 zz")
    assert (code, printed) == (-errno.EACCES, "report: Block node is read-only\n")
    shell.disk.pool.close()


async def test_a_users_veto_is_reported(shell):
    other = Backend("other", Perm.CONSISTENT_READ, Perm.ALL & ~Perm.WRITE)
    shell.graph.insert(other, shell.disk)
    code, printed = await shell("write 0 1")
    assert code == -errno.EPERM
    assert printed == (
        "report: Permission conflict on node 'disk': permissions 'write' are both required by block "
        "device 'drive' (uses node 'disk' as 'root' child) and unshared by block device 'other' "
        "(uses node 'disk' as 'root' child).\n"
    )
    assert shell.backend.perm == Perm.CONSISTENT_READ


async def test_hex_suffixes_are_warned_of_where_errors_are_reported(shell):
    _, printed = await shell("read -q 0x0k 1")
    assert (
        printed == "report: warning: Using a multiplier suffix on hex numbers is deprecated: 0x0k\n"
    )


async def test_map_joins_what_is_alike(shell):
    _, printed = await shell("map")
    lines = printed.splitlines()
    assert lines[:2] == [
        "out: 64 KiB (0x10000) bytes not allocated at offset 0 bytes (0x0)",
        "64 KiB (0x10000) bytes     allocated at offset 64 KiB (0x10000)",
    ]
    assert len(lines) == 16


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("alloc 0", "0/512 bytes allocated at offset 0 bytes"),
        ("alloc 64k 128k", "65536/131072 bytes allocated at offset 64 KiB"),
        ("a 65000 1k", "488/1024 bytes allocated at offset 63.477 KiB"),
        ("alloc 0 2M", "524288/1048576 bytes allocated at offset 0 bytes"),
        ("alloc 3M", "0/0 bytes allocated at offset 3 MiB"),
        ("length", "1 MiB"),
        ("l", "1 MiB"),
    ],
)
async def test_what_is_asked_of_the_image_is_answered(shell, line, text):
    assert await shell(line) == (0, f"out: {text}\n")


async def test_an_empty_backend_has_no_medium(shell):
    shell.io.backend = Backend("empty")
    for line, text in {
        "read 0 512": "out: read failed: No medium found\n",
        "write 0 512": "out: write failed: No medium found\n",
        "length": "out: getlength: No medium found\n",
        "map": "report: Failed to query image length: No medium found\n",
        "truncate 1": "report: No medium inserted\n",
        "flush": "",
    }.items():
        code, printed = await shell(line)
        assert (printed, code < 0) == (text, True), line


async def test_without_an_image_only_some_commands_run(shell):
    shell.io.backend = None
    assert await shell("read 0 1") == (-errno.EINVAL, "err: no file open, try 'help open'\n")
    assert await shell("help sleep") == (
        0,
        "out: sleep -- waits for the given value in milliseconds\n",
    )


async def test_help_lists_commands_in_order_of_their_names(shell):
    _, printed = await shell("help")
    lines = printed.splitlines()
    assert lines[0] == "out: abort -- simulate a program crash using abort(3)"
    assert "map  -- prints the allocated areas of a file" in lines
    assert lines[-1] == "Use 'help commandname' for extended help."
    assert lines[:-2] == sorted(lines[:-2], key=lambda line: line.removeprefix("out: ").split()[0])


async def test_sleep_goes_by_the_clock(shell):
    clock = shell.clocks.realtime
    sleeping = asyncio.ensure_future(shell("sleep 20"))
    while clock.next_deadline is None:
        await asyncio.sleep(0)
    assert clock.next_deadline == 20 * 10**6
    clock.step(20 * 10**6)
    assert await sleeping == (0, "")


async def test_an_aio_request_returns_at_once_and_reports_when_done(shell):
    shell.disk.gate = asyncio.get_running_loop().create_future()
    assert await shell("aio_write -P 7 0 1k 1k") == (0, "")
    assert shell.disk.calls == [("write", 0, 2048, 0)]
    shell.clocks.realtime.step(250_000_000)
    shell.disk.gate.set_result(None)
    code, printed = await shell("aio_flush")
    assert (code, printed) == (
        0,
        "out: wrote 2048/2048 bytes at offset 0\n2 KiB, 1 ops; 00.25 sec (8 KiB/sec and 4.0000 ops/sec)\n",
    )
    assert shell.disk.data[:2048] == b"\7" * 2048


async def test_an_aio_request_that_is_done_at_once_is_still_reported_later(shell):
    assert await shell("aio_read -q 0 1") == (0, "")
    assert await shell("aio_read -C 0 1k") == (0, "")
    assert await shell("length") == (0, "out: 1 MiB\n")
    _, printed = await shell("aio_flush")
    assert printed.startswith("out: 1024,1,0:00:00.00,")
    assert not shell.tasks


async def test_aio_flush_awaits_other_interpreters_requests(shell):
    shell.disk.gate = asyncio.get_running_loop().create_future()
    other = shell.interpreter(shell.backend)
    await other.run("aio_read -q 0 1")
    flushing = asyncio.ensure_future(shell("aio_flush"))
    await asyncio.sleep(0)
    assert not flushing.done()
    shell.disk.gate.set_result(None)
    assert await flushing == (0, "")
    assert not other.own


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("aio_read 1M 1", "out: readv failed: Input/output error\n"),
        ("aio_write 1M 1", "out: aio_write failed: Input/output error\n"),
        ("aio_write -z 1M 1", "out: aio_write failed: Input/output error\n"),
        ("aio_read -q -P 9 0 1", "out: Pattern verification failed at offset 0, 1 bytes\n"),
    ],
)
async def test_a_failed_aio_request_counts_as_success_and_tells_when_done(shell, line, text):
    assert await shell(line) == (0, "")
    assert await shell("aio_flush") == (0, text)


@pytest.mark.parametrize(
    ("line", "kind"), [("aio_read -i 0 1 -x", "read"), ("aio_write 0 1 -zi", "write")]
)
async def test_an_invalid_aio_request_is_not_made(shell, line, kind):
    assert await shell(line) == (0, f"out: injecting invalid {kind} request\n")
    assert not shell.disk.calls


async def test_a_zero_write_by_aio_reports_the_time_since_the_clock_began(shell):
    shell.clocks.realtime.step(1_822_620_000_000)
    await shell("aio_write -z 0 1k")
    _, printed = await shell("aio_flush")
    assert printed == (
        "out: wrote 1024/1024 bytes at offset 0\n"
        "1 KiB, 1 ops; 0:30:22.62 (0.561829 bytes/sec and 0.0005 ops/sec)\n"
    )
