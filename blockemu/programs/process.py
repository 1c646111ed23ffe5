"""The program as a process: going into the background, the PID file (after os-posix.c)."""

import atexit
import fcntl
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from blockemu import lean
from blockemu.errors import QmpError, Wrapped

if TYPE_CHECKING:
    import asyncio

OBJECTS: Final = 50_000  # that are made before it is looked for garbage
KEPT: Final = 4 << 20  # bytes
KEPT_LONG: Final = 8 << 20


def prepare(*, tool: bool = False) -> None:
    """Set the interpreter up for a program of ours; a tool calls ``settle`` later."""
    lean.install()
    sys.setswitchinterval(5e-5)  # the event loop must not wait 5 ms for a thread to let go
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # As other programs end; asyncio would make the exception come where it can be awaited.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Imports make tens of thousands of objects that stay: looking at them for garbage, again and
    # again, is a tenth of a start (``make bench``: start-up, images).
    gc.set_threshold(200_000 if tool else OBJECTS, 20, 20)
    # numpy is for its arrays here: threads for linear algebra only cost time at the start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not tool:
        _keep_freed(KEPT_LONG)  # bitmaps come and go (``make bench``: bitmaps that images keep)


def settle() -> None:
    """Set the interpreter up for a tool's work, when what that takes is imported."""
    gc.freeze()  # modules stay: collections need not look at them (``make bench``: images)
    gc.set_threshold(OBJECTS, 20, 20)
    _keep_freed(KEPT)  # else each pair of tables would be handed back


def _keep_freed(size: int) -> None:
    """Have some freed memory kept.

    glibc hands it back, and has it mapped and cleared anew at the next request, above twice the
    size of the largest block that was ever freed.
    """
    bytes(size)


def on_signal(
    number: int, loop: "asyncio.AbstractEventLoop", call: Callable[..., object], *args: object
) -> None:
    """Have something called on the event loop when a signal comes.

    The loop itself would first look whether that is a coroutine, with ``inspect`` and all that this
    imports (``make bench``: start-up).
    """

    def tell(*_: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: the program ends already
            loop.call_soon_threadsafe(call, *args)

    signal.signal(number, tell)


def ends(status: int) -> int:
    """End the process with a status, without taking modules and objects apart one by one.

    The interpreter does that last, for processes that go on after it; it is a twentieth of a tool's
    run (``make bench``: startup).  All else that it does at its end is done here: threads are
    waited for, what was asked for by ``atexit`` is done, and output is flushed.  The status is
    returned only to a debugger, a profiler or a measurement of coverage, which go on themselves.
    """
    if sys.gettrace() or sys.getprofile():
        return status
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # full, closed, or not there
            stream.flush()
    os._exit(status)


class PidFileError(QmpError):
    """(what failed, errno's text)."""

    template = "{}: {}"


class Background:
    """A daemon's way out of the foreground: the parent waits until ``ready`` was called."""

    def __init__(self) -> None:
        """Fork; only the daemon returns."""
        reader, self._writer = os.pipe()
        if os.fork():
            os.close(self._writer)
            os._exit(0 if os.read(reader, 1) == b"\0" else 1)
        os.close(reader)
        os.setsid()
        if os.fork():
            os._exit(0)
        os.umask(0o027)
        for number in (signal.SIGTSTP, signal.SIGTTOU, signal.SIGTTIN):
            signal.signal(number, signal.SIG_IGN)

    def ready(self) -> None:
        """Let go of folder and terminal, and let the parent end well."""
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.close(null)
        os.write(self._writer, b"\0")
        os.close(self._writer)


class PidFile:
    """A file with our process id, locked while we live."""

    def __init__(self, path: str) -> None:
        """Write it.

        Raises:
            Wrapped: it cannot be made, or another process holds it.
        """
        try:
            self._fd = _locked(path)
        except PidFileError as e:
            raise Wrapped("cannot create PID file", e) from e
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())
        self._path = os.path.realpath(path)

    def remove(self) -> None:
        """Remove it."""
        with suppress(OSError):  # somebody was faster, or took the folder away
            os.unlink(self._path)  # noqa: PTH108
        os.close(self._fd)


def _locked(path: str) -> int:
    while True:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise PidFileError(f"Could not create '{path}'", e.strerror) from e
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            os.close(fd)
            raise PidFileError("Cannot lock pid file", e.strerror) from e
        try:
            if os.stat(path).st_ino == os.fstat(fd).st_ino:  # noqa: PTH116
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)  # it was replaced meanwhile: try again
