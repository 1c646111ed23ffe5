"""The real daemon and ours as measured programs: the same arguments, one end of a socket pair."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

BIN = Path(sys.executable).parent
MACHINE = ["-nodefaults", "-display", "none", "-machine", "none"]
PROGRAMS = {  # and the options that a monitor on a chardev takes
    "qemu-storage-daemon": (["qemu-storage-daemon"], "--monitor"),
    "blockemu": ([str(BIN / "blockemu")], "--monitor"),
    "qemu-system-x86_64": (["qemu-system-x86_64", *MACHINE], "-qmp"),
    "blockemu-qemu": ([str(BIN / "blockemu-qemu"), *MACHINE], "-qmp"),
}
SILENCE = 120  # seconds without a word from a daemon, and a row has failed
MONITOR = {"--monitor": "chardev=m", "-qmp": "chardev:m"}
NEGOTIATE = b'{"execute": "qmp_capabilities"}\n'


class Daemon(AbstractContextManager["Daemon"]):
    """A running program; its monitor is the other end of ``self.socket``.

    The program inherits a connected socket, so nothing waits for a path to appear.
    """

    def __init__(
        self,
        program: str,
        *,
        cpus: Iterable[int] | None = None,
        wrap: Iterable[str] = (),
        stderr: int | None = None,
    ) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(SILENCE)
        with theirs:
            command, option = PROGRAMS[program]
            arguments = [
                *wrap,
                *command,
                *("--chardev", f"socket,id=m,fd={theirs.fileno()},server=off"),
                *(option, MONITOR[option]),
            ]
            before = os.sched_getaffinity(0)
            if cpus is not None:
                os.sched_setaffinity(0, cpus)  # the child inherits it
            try:
                self.process = subprocess.Popen(
                    arguments, pass_fds=[theirs.fileno()], stderr=stderr, stdin=subprocess.DEVNULL
                )
            finally:
                os.sched_setaffinity(0, before)

    def lines(self, count: int) -> None:
        """Receive until ``count`` line ends have come."""
        while count > 0:
            got = self.socket.recv(1 << 16)
            if not got:
                raise RuntimeError(f"{self.process.args}: ended with {self.process.wait()}")
            count -= got.count(b"\r\n")

    def ready(self) -> Self:
        """Wait for the greeting and negotiate."""
        self.lines(1)
        self.socket.sendall(NEGOTIATE)
        self.lines(1)
        return self

    def __exit__(self, *_: object) -> None:
        """End the program."""
        self.socket.close()
        self.process.kill()
        self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()
