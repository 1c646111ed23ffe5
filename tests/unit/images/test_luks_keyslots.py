"""Headers and key slots, on bytes and values."""

import os

import pytest

from blockemu.ciphers import make_cipher
from blockemu.images.errors import FormatError
from blockemu.images.luks.afsplit import merge, split
from blockemu.images.luks.algorithms import Spec, check_cipher, parse_spec
from blockemu.images.luks.header import (
    HEADER_BYTES,
    SALT,
    STRIPES,
    LuksHeader,
    check_header,
    has_magic,
    new_header,
)
from blockemu.images.luks.keyslots import (
    fill_slot,
    iterations_for,
    iterations_per_second,
    open_slot,
    pbkdf2,
    set_digest,
)
from blockemu.records import replace


@pytest.mark.parametrize(
    ("digest", "iterations", "wanted"),
    [  # RFC 6070, and the same for SHA-256 as RFC 7914's authors give it
        ("sha1", 1, "0c60c80f961f0e71f3a9b524af6012062fe037a6"),
        ("sha1", 4096, "4b007901b765489abead49d926f721d065a429c1"),
        ("sha256", 1, "120fb6cffcf8b32c43e7225256c4f837a86548c9"),
        ("sha256", 4096, "c5e478d59288c841aa530db6845c4c8d962893a0"),
    ],
)
def test_pbkdf2_gives_the_published_keys(digest, iterations, wanted):
    assert pbkdf2(digest, b"password", b"salt", iterations, 20).hex() == wanted


def test_what_is_split_into_zeroes_and_the_key_is_merged_by_hashes_of_zeroes():
    import hashlib

    first = hashlib.sha256(bytes(4) + bytes(32)).digest()
    key = bytes(range(32))
    made = split(key, 2, "sha256", bytes)
    assert made == bytes(32) + bytes(a ^ b for a, b in zip(first, key, strict=True))


@pytest.mark.parametrize("size", [16, 20, 32, 33, 64])
@pytest.mark.parametrize("digest", ["sha1", "sha256", "ripemd160"])
def test_what_is_split_is_merged_and_each_bit_counts(size, digest):
    key = os.urandom(size)
    made = bytearray(split(key, 50, digest, os.urandom))
    assert len(made) == size * 50
    assert merge(bytes(made), 50, digest) == key
    made[7] ^= 1
    assert merge(bytes(made), 50, digest) != key


def header_with_key(spec, passphrase=b"hunter2"):
    header = new_header(spec, "11111111-2222-3333-4444-555555555555", os.urandom(SALT))
    key = os.urandom(spec.key_bytes)
    set_digest(header, spec, key, 1000)
    header.slots[0], material = fill_slot(
        spec, header.slots[0], passphrase, key, 1000, os.urandom(SALT), make_cipher, os.urandom
    )
    return header, key, material


SPECS = [
    Spec(),
    Spec("aes-192", "cbc", "plain"),  # its material ends within a sector
    Spec("aes-128", "cbc", "essiv", "sha256", "sha512"),
    Spec("cast5-128", "ecb", hash="ripemd160"),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.cipher}-{s.mode_text}")
def test_a_slot_opens_with_its_passphrase_and_no_other(spec):
    header, key, material = header_with_key(spec)
    raw = header.pack()
    assert len(raw) == HEADER_BYTES
    assert has_magic(raw)
    again = LuksHeader.unpack(raw)
    check_header(again)
    assert again.spec() == spec
    view = memoryview(material)
    slot = again.slots[0]
    assert open_slot(again, spec, slot, b"hunter2", view, make_cipher) == key
    assert open_slot(again, spec, slot, b"hunter", view, make_cipher) is None


def changed(slot=None, **members):
    header = new_header(Spec(), "u", bytes(SALT))
    header.digest_iterations = 1000
    for name, value in members.items():
        setattr(header, name, value)
    for i, more in (slot or {}).items():
        header.slots[i] = replace(header.slots[i], **more)
    return header


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (changed(magic=b"LUKS\xba\xbf"), "Volume is not in LUKS format"),
        (changed(version=2), "LUKS version 2 is not supported"),
        (changed(cipher_name=b"a" * 32), "LUKS header cipher name is not NUL terminated"),
        (changed(cipher_mode=b"a" * 32), "LUKS header cipher mode is not NUL terminated"),
        (changed(hash_spec=b"a" * 32), "LUKS header hash spec is not NUL terminated"),
        (changed(payload=7), "LUKS payload is overlapping with the header"),
        (changed(digest_iterations=0), "LUKS key iteration count is zero"),
        (changed({3: {"stripes": 2**32 - 1}}), "Keyslot 3 is corrupted (stripes -1 != 4000)"),
        (changed({3: {"state": 5}}), "Keyslot 3 state (active/disable) is corrupted"),
        (changed({1: {"state": 0x00AC71F3}}), "Keyslot 1 iteration count is zero"),
        (changed({0: {"offset": 7}}), "Keyslot 0 is overlapping with the LUKS header"),
        (
            changed({0: {"offset": 2**32 - 1}}),
            "Keyslot 0 is overlapping with the encrypted payload",
        ),
        (changed({1: {"offset": 12}}), "Keyslots 0 and 1 are overlapping in the header"),
    ],
)
def test_a_damaged_header_is_refused(header, text):
    header = LuksHeader.unpack(header.pack())
    with pytest.raises(FormatError) as caught:
        check_header(header)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("aes", "xts", "sha256", 64), "Unexpected cipher mode string format 'xts'"),
        (("aes", "foo-plain", "sha256", 64), "Cipher mode 'foo' not supported"),
        (("aes", "xts-plain:foo", "sha256", 64), "Hash algorithm 'foo' not supported"),
        (
            ("foo", "xts-plain", "sha256", 64),
            "Algorithm 'foo' with key size 32 bytes not supported",
        ),
        (
            ("aes", "cbc-plain", "sha256", 64),
            "Algorithm 'aes' with key size 64 bytes not supported",
        ),
        (("aes", "xts-plain", "foo", 64), "Hash algorithm 'foo' not supported"),
        (("aes", "xts-foo", "sha256", 64), "IV generator 'foo' not supported"),
        (("aes", "cbc-essiv", "sha256", 32), "Missing IV generator hash specification"),
        (("aes", "cbc-essiv:sha1", "sha256", 32), "No AES cipher with key size 20 available"),
        (("cast5", "cbc-essiv:sha256", "sha256", 16), "Cipher cast5-128 not supported with essiv"),
    ],
)
def test_an_unknown_algorithm_is_refused(args, text):
    with pytest.raises(FormatError) as caught:
        parse_spec(*args)
    assert str(caught.value) == text


def test_des_is_no_cipher_of_luks():
    with pytest.raises(FormatError, match="Algorithm 'des' not supported"):
        check_cipher("des")


def test_the_payload_is_where_qemu_has_it():
    places = {("aes-256", "xts"): 2068480, ("aes-192", "xts"): 1544192, ("aes-128", "cbc"): 528384}
    for (cipher, mode), offset in places.items():
        assert new_header(Spec(cipher, mode), "u", bytes(SALT)).payload_offset == offset
    assert STRIPES == 4000


def test_a_second_is_measured_by_the_clock_that_is_given():
    times = iter([0.0, 0.01, 1.0, 3.0])
    rate = iterations_per_second("sha1", lambda: next(times))
    assert rate == 32768
    assert iterations_for(rate, "sha1", 64, 500) == 32768 // 4 // 2


@pytest.mark.parametrize("milliseconds", [-1, 2**62])
def test_a_time_that_is_no_time_is_refused(milliseconds):
    with pytest.raises(FormatError, match="PBKDF iterations 9 too large to scale"):
        iterations_for(9, "sha256", 20, milliseconds)


def test_more_iterations_than_a_header_can_tell_are_refused():
    with pytest.raises(FormatError, match="PBKDF iterations 4300000000 larger than 4294967295"):
        iterations_for(4_300_000, "sha256", 20, 1_000_000)
    with pytest.raises(FormatError, match="PBKDF iterations 4294967295 must be less than"):
        pbkdf2("sha256", b"p", b"s", 2**32 - 1, 20)


def test_a_wrong_guess_takes_what_the_header_says_and_no_more(monkeypatch):
    header, _, material = header_with_key(Spec())
    asked = []

    def counted(digest, secret, salt, iterations, size):
        asked.append(iterations)
        return pbkdf2(digest, secret, salt, iterations, size)

    monkeypatch.setattr("blockemu.images.luks.keyslots.pbkdf2", counted)
    slot = header.slots[0]
    view = memoryview(material)
    assert open_slot(header, Spec(), slot, b"wrong", view, make_cipher) is None
    assert asked == [slot.iterations, header.digest_iterations]
    endless = replace(slot, iterations=2**32 - 1)  # QEMU's limit: no guess goes on for hours
    with pytest.raises(FormatError, match="must be less than"):
        open_slot(header, Spec(), endless, b"wrong", view, make_cipher)
