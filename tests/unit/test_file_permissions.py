"""What the file driver's set_perm does and takes back: locks and the descriptor."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.host.locking import ImageLock, LockTaken
from blockemu.perm import Perm
from blockemu.transaction import Transaction

_FLOCK = struct.Struct("hhqqi0q")
READ, WRITE, RESIZE = Perm.CONSISTENT_READ, Perm.WRITE, Perm.RESIZE
ALL = Perm.ALL


def locked(path: Path) -> list[int]:
    found = []
    with path.open("r+b") as file:
        for byte in (*range(95, 110), *range(195, 210)):
            ask = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
            if _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_OFD_GETLK, ask))[0] != fcntl.F_UNLCK:
                found.append(byte)
    return found


def mode(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(bytes(65536))
    return path


@pytest.fixture
async def node(path: Path) -> AsyncIterator[Any]:
    emulator = Emulator()
    node = await emulator.opener.open(
        {"driver": "file", "filename": str(path), "auto-read-only": True}
    )
    node.monitor_owned = True
    before = descriptors()
    yield node
    assert descriptors() == before
    await emulator.close()
    assert locked(path) == []


def commit(node: Any, *steps: tuple[Perm, Perm]) -> None:
    with Transaction() as transaction:
        for perm, shared in steps:
            node.set_perm(perm, shared, transaction)


def abort(node: Any, *steps: tuple[Perm, Perm]) -> None:
    transaction = Transaction()
    for perm, shared in steps:
        node.set_perm(perm, shared, transaction)
    transaction.abort()


def test_each_permission_is_a_byte_for_using_and_one_for_not_sharing(node: Any, path: Path) -> None:
    commit(node, (READ, ALL))
    assert locked(path) == [100]
    commit(node, (READ | WRITE | RESIZE, ALL & ~WRITE & ~RESIZE))
    assert locked(path) == [100, 101, 103, 201, 203]
    commit(node, (Perm.WRITE_UNCHANGED, READ))
    assert locked(path) == [102, 201, 202, 203]
    commit(node, (Perm.NONE, ALL))
    assert locked(path) == []


def test_what_is_aborted_leaves_locks_and_access_mode_as_they_were(node: Any, path: Path) -> None:
    commit(node, (READ, ALL))
    number = node.fd
    abort(node, (READ | WRITE, READ))
    assert (locked(path), mode(node.fd), node.fd) == ([100], os.O_RDONLY, number)
    commit(node, (READ | WRITE, ALL & ~RESIZE))
    abort(node, (Perm.NONE, ALL))
    assert (locked(path), mode(node.fd), node.fd) == ([100, 101, 203], os.O_RDWR, number)


@pytest.mark.parametrize(
    ("steps", "bytes_", "access"),
    [
        ([(READ, ALL), (READ | WRITE, ALL)], [100, 101], os.O_RDWR),
        ([(READ | WRITE, ALL), (READ, ALL)], [100], os.O_RDONLY),
        ([(READ | WRITE, ALL & ~WRITE), (WRITE, ALL)], [101], os.O_RDWR),
        ([(READ | WRITE, ALL & ~WRITE), (Perm.NONE, ALL)], [], os.O_RDONLY),
        ([(WRITE, ALL & ~WRITE), (READ, ALL & ~READ), (WRITE, ALL & ~WRITE)], [101, 201], os.O_RDWR),
        ([(WRITE, ALL & ~WRITE), (WRITE | READ, ALL & ~WRITE)], [100, 101, 201], os.O_RDWR),
    ],
)  # fmt: skip
def test_the_last_of_several_changes_in_one_transaction_counts(
    node: Any, path: Path, steps: list[tuple[Perm, Perm]], bytes_: list[int], access: int
) -> None:
    commit(node, *steps)
    assert (locked(path), mode(node.fd)) == (bytes_, access)
    commit(node, (Perm.NONE, ALL))
    commit(node, (READ, ALL))
    abort(node, *steps)
    assert (locked(path), mode(node.fd)) == ([100], os.O_RDONLY)


def test_a_conflict_with_another_program_leaves_all_as_it_was(node: Any, path: Path) -> None:
    with path.open("r+b") as other:
        theirs = ImageLock(other.fileno())
        theirs.take(READ, WRITE)
        commit(node, (READ, ALL))
        for steps in ([(READ | WRITE, ALL)], [(READ, ALL), (READ | WRITE, ALL)]):
            transaction = Transaction()
            *first, last = steps
            for step in first:
                node.set_perm(*step, transaction)
            with pytest.raises(LockTaken) as raised:
                node.set_perm(*last, transaction)
            transaction.abort()
            assert str(raised.value) == 'Failed to get "write" lock'
            assert raised.value.hint == f"Is another process using the image [{path}]?\n"
        with pytest.raises(QmpError, match='Failed to get shared "consistent read" lock'):
            node.set_perm(READ, ALL & ~READ, Transaction())
        assert mode(node.fd) == os.O_RDONLY
        theirs.keep(Perm.NONE, Perm.NONE)
        assert locked(path) == [100]


def test_sharing_with_another_program_is_no_conflict(node: Any, path: Path) -> None:
    with path.open("r+b") as other:
        theirs = ImageLock(other.fileno())
        theirs.take(READ | WRITE, Perm.NONE)
        commit(node, (READ | WRITE, ALL & ~RESIZE))
        assert locked(path) == [100, 101, 203]
        theirs.check(READ, ALL, "")
        with pytest.raises(LockTaken, match='Failed to get "resize" lock'):
            theirs.check(RESIZE, ALL, "")
