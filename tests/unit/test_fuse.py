"""What the kernel and its helper say and hear when a file is to be covered, without either."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from blockemu.exports import fuse_wire as wire
from blockemu.exports import mounting

HELPER = """\
#!{python}
import array, os, socket, sys
if sys.argv[1:] == ["-o", "{options}", "--", "{path}"]:
    fd = os.open("{path}", os.O_RDONLY)
    with socket.socket(fileno=int(os.environ["_FUSE_COMMFD"])) as to:
        to.sendmsg([b"\\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
"""


def asked(what: int, body: bytes) -> memoryview:
    head = wire.HEAD.pack(wire.HEAD.size + len(body), what, 7, 1, 0, 0, 0)
    return memoryview(head + body)


def test_a_newer_kernel_is_asked_to_ask_again_and_an_older_one_refused() -> None:
    newer, older = (asked(wire.INIT, struct.pack("=IIII", n, 0, 0, 0)) for n in (8, 6))
    assert struct.unpack_from("=II", wire.init(newer)) == (7, wire.MINOR)
    with pytest.raises(OSError, match="old"):
        wire.init(older)


def test_the_kernel_is_promised_nothing_that_it_does_not_know() -> None:
    for abilities in (0, 1, 0xFFFFFFFF):
        body = struct.pack("=IIII", 7, 31, 131072, abilities)
        _, _, readahead, promised = struct.unpack_from("=IIII", wire.init(asked(wire.INIT, body)))
        assert readahead == 131072
        assert not promised & ~abilities


@pytest.mark.parametrize("options", ["max_read=1,allow_other", "refused"])
def test_the_helper_mounts_for_those_who_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    covered, helper = tmp_path / "file", tmp_path / mounting.HELPER
    covered.write_bytes(b"what the kernel asks")
    text = HELPER.format(python=sys.executable, options="max_read=1,allow_other", path=covered)
    helper.write_text(text)
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    def denied(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(mounting, "_mount", denied)
    monkeypatch.setattr(mounting, "DEVICE", os.devnull)
    said: list[str] = []
    if options == "refused":
        with pytest.raises(mounting.CannotMount):
            mounting.mount(str(covered), options, said.append)
    else:
        fd = mounting.mount(str(covered), options, said.append)
        assert os.read(fd, 100) == covered.read_bytes()
        assert not os.get_inheritable(fd)
        os.close(fd)
    assert said == []


def test_why_nothing_is_mounted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    covered = tmp_path / "file"
    covered.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    errors = iter((1, 22))

    def failing(*_: object) -> None:
        number = next(errors)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(mounting, "_mount", failing)
    monkeypatch.setattr(mounting, "DEVICE", os.devnull)
    for path in (covered, covered, tmp_path / "missing"):
        with pytest.raises(mounting.CannotMount):
            mounting.mount(str(path), "", said.append)
    for device in (tmp_path / "missing", covered / "x"):
        monkeypatch.setattr(mounting, "DEVICE", str(device))
        with pytest.raises(mounting.CannotMount):
            mounting.mount(str(covered), "", said.append)
    assert said == [
        "fuse: failed to exec fusermount3: No such file or directory",
        "fuse: mount failed: Invalid argument",
        f"fuse: failed to access mountpoint {tmp_path / 'missing'}: No such file or directory",
        "fuse: device not found, try 'modprobe fuse' first",
        f"fuse: failed to open {covered / 'x'}: Not a directory",
    ]
