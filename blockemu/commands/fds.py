"""File descriptors that a client sends along (SCM_RIGHTS), kept by name or in sets."""

import os
import stat

from blockemu.commands.context import Context
from blockemu.errors import InvalidParameterValue, QmpError
from blockemu.host.fdsets import FdNotFound
from blockemu.host.sockets import NotASocket
from blockemu.qmp_server.dispatch import command
from blockemu.qmp_server.qapi import Struct


class NoFd(QmpError):
    """Nothing came along."""

    template = "No file descriptor supplied via SCM_RIGHTS"


class NoNamedFd(QmpError):
    """(name): asked for as a socket."""

    template = "File descriptor named '{}' has not been found"


class AddfdInfo(Struct):
    """What ``add-fd`` answers.

    @fdset-id: the set
    @fd: the descriptor's number here
    """

    fdset_id: int
    fd: int


class FdsetFdInfo(Struct):
    """A descriptor in a set.

    @fd: its number here
    @opaque: what the client said about it
    """

    fd: int
    opaque: str | None = None


class FdsetInfo(Struct):
    """A set.

    @fdset-id: its number
    @fds: the descriptors in it
    """

    fdset_id: int
    fds: list[FdsetFdInfo]


def _received(context: Context) -> int:
    fd = context.take_fd()
    if fd is None:
        raise NoFd
    return fd


def take_socket(context: Context, name: str) -> str:
    """Take a socket that was kept under a name; return its number (socket_get_fd).

    Numbers are no names: a client does not reach what is not its own.  Raises QmpError.
    """
    fd = context.named_fds.pop(name, None)
    if fd is None:
        raise NoNamedFd(name)
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotASocket(name)
    return str(fd)


@command(since="0.14")
def getfd(context: Context, *, fdname: str) -> None:
    """Keep a descriptor under a name, in place of one that has it."""
    fd = _received(context)
    if fdname[:1].isascii() and fdname[:1].isdigit():
        os.close(fd)
        raise InvalidParameterValue("fdname", "a name not starting with a digit")
    old = context.named_fds.pop(fdname, None)
    if old is not None:
        os.close(old)
    context.named_fds[fdname] = fd


@command(since="0.14")
def closefd(context: Context, *, fdname: str) -> None:
    """Close a descriptor that was kept under a name."""
    fd = context.named_fds.pop(fdname, None)
    if fd is None:
        raise FdNotFound(fdname)
    os.close(fd)


@command(since="1.2")
def add_fd(
    context: Context, *, fdset_id: int | None = None, opaque: str | None = None
) -> AddfdInfo:
    """Put a descriptor into a set."""
    fd = _received(context)
    try:
        fdset = context.emu.fdsets.add(fd, fdset_id, opaque)
    except QmpError:
        os.close(fd)
        raise
    return AddfdInfo(fdset_id=fdset.number, fd=fd)


@command(since="1.2")
def remove_fd(context: Context, *, fdset_id: int, fd: int | None = None) -> None:
    """Take one descriptor or all out of a set."""
    context.emu.fdsets.remove(fdset_id, fd)


@command(since="1.2")
def query_fdsets(context: Context) -> list[FdsetInfo]:
    """List the sets, the highest number first."""
    sets = reversed(list(context.emu.fdsets))
    return [
        FdsetInfo(
            fdset_id=fdset.number,
            fds=[FdsetFdInfo(fd=m.fd, opaque=m.opaque) for m in reversed(fdset.members)],
        )
        for fdset in sets
    ]
