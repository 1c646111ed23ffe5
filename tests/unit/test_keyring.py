"""Secrets that the kernel keeps, with a kernel of our own."""

import ctypes
from typing import Any

import pytest

from blockemu.clocks import SteppedClock
from blockemu.objects import keyring
from blockemu.objects.object_add import Objects
from blockemu.objects.qom import Tree
from blockemu.schema.objects import QCryptoSecretFormat, SecretKeyringProperties


class Kernel:
    """Has keys, one of which grows while it is read."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = list(contents)

    def __call__(self, number: int, serial: int, buffer: Any, size: int) -> int:
        content = self.contents.pop(0) if len(self.contents) > 1 else self.contents[0]
        if size:
            ctypes.memmove(buffer, content, min(size, len(content)))
        return len(content)


def read(monkeypatch: pytest.MonkeyPatch, *contents: bytes, **options: Any) -> bytes:
    monkeypatch.setattr(keyring, "_system_call", Kernel(*contents))
    objects = Objects(Tree(), SteppedClock())
    objects.add(SecretKeyringProperties(id="k", serial=7, **options))
    return objects.secret("k")


def test_a_key_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, b"secret") == b"secret"
    assert read(monkeypatch, b"") == b""


def test_a_key_that_grew_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, b"ab", b"abcd", b"abcd") == b"abcd"


def test_a_key_may_be_in_base64(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, b"c2VjcmV0", format=QCryptoSecretFormat.BASE64) == b"secret"
