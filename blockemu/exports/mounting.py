"""Files that programs serve put in the place of others (fuse_session_mount, libfuse)."""

import array
import ctypes
import errno
import os
import socket
import stat
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from blockemu.os_errors import os_error

DEVICE: Final = "/dev/fuse"
HELPER: Final = "fusermount3"  # may mount for those who may not
_NOSUID, _NODEV, _DETACH = 2, 4, 2
Tell = Callable[[str], None]


class CannotMount(Exception):
    """Why has been told."""


def mount(path: str, options: str, tell: Tell) -> int:
    """Mount; return the descriptor on which the kernel asks.

    Raises:
        CannotMount: it is not to be.

    """
    try:
        mode = Path(path).stat().st_mode
    except OSError as e:
        raise _failed(tell, f"failed to access mountpoint {path}", e) from e
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as e:
        if e.errno in (errno.ENODEV, errno.ENOENT):
            tell("fuse: device not found, try 'modprobe fuse' first")
            raise CannotMount from e
        raise _failed(tell, f"failed to open {DEVICE}", e) from e
    own = f"fd={fd},rootmode={stat.S_IFMT(mode):o},user_id={os.getuid()},group_id={os.getgid()}"
    try:
        _mount(path, f"{own},{options}")
    except OSError as e:
        os.close(fd)
        if e.errno != errno.EPERM:
            raise _failed(tell, "mount failed", e) from e
        return _by_helper(path, options, tell)
    return fd


def unmount(path: str, fd: int) -> None:
    """Stop serving, and let what was covered be seen again."""
    os.close(fd)  # first, or the kernel asks us whether it may
    if os.geteuid() == 0:
        with suppress(OSError):
            _call("umount2", path.encode("utf-8", "surrogateescape"), _DETACH)
        return
    with suppress(OSError):
        subprocess.run([HELPER, "-u", "-q", "-z", "--", path], check=False)


def _by_helper(path: str, options: str, tell: Tell) -> int:
    """Let the program mount that may; it hands the descriptor over."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        number = theirs.fileno()
        environment = os.environ | {"_FUSE_COMMFD": str(number)}
        command = [HELPER, "-o", options, "--", path]
        try:
            subprocess.run(command, check=False, env=environment, pass_fds=[number])
        except OSError as e:
            raise _failed(tell, f"failed to exec {HELPER}", e) from e
        theirs.close()
        fds = array.array("i")
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(fds.itemsize))
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: fds.itemsize])
    if not fds:
        raise CannotMount
    os.set_inheritable(fds[0], False)
    return fds[0]


def _mount(path: str, options: str) -> None:
    where, data = (text.encode("utf-8", "surrogateescape") for text in (path, options))
    _call("mount", DEVICE.encode(), where, b"fuse", ctypes.c_ulong(_NOSUID | _NODEV), data)


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0:
        code = ctypes.get_errno()
        raise os_error(code)


def _failed(tell: Tell, what: str, error: OSError) -> CannotMount:
    tell(f"fuse: {what}: {os.strerror(error.errno or errno.EIO)}")
    return CannotMount()
