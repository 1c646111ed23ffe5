"""Ciphers over sectors: known answers, and the library's own modes sector by sector."""

import os

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import CAST5
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from blockemu.ciphers import make_cipher
from blockemu.images.luks.algorithms import GENERATORS, MODES, Spec
from blockemu.images.luks.sectors import CHUNK, SECTOR, Xts, sector_cipher

E1, E2 = "27182818284590452353602874713526", "31415926535897932384626433832795"
LONG1 = "2718281828459045235360287471352662497757247093699959574966967627"
LONG2 = "3141592653589793238462643383279502884197169399375105820974944592"
COUNT = bytes(range(256)) * 2
# IEEE 1619-2007, annex B: keys, data unit, the first and the last 16 bytes of the ciphertext of
# vectors 4 and 10 over 00 01 ... ff 00 01 ... ff
VECTORS = [
    (E1, E2, 0, "27a7479befa1d476489f308cd4cfa6e2", "0a282df920147beabe421ee5319d0568"),
    (LONG1, LONG2, 0xFF, "1c3b3a102f770386e4836c99e370cf9b", "c4f36ffda9fcea70b9c6e693e148c151"),
]


def encrypted(spec, key, sector, data):
    into = bytearray(len(data))
    sector_cipher(spec, key, make_cipher).encrypt(sector, memoryview(data), memoryview(into))
    return bytes(into)


def decrypted(spec, key, sector, data):
    into = bytearray(len(data))
    sector_cipher(spec, key, make_cipher).decrypt(sector, memoryview(data), memoryview(into))
    return bytes(into)


@pytest.mark.parametrize(("key", "tweak", "unit", "first", "last"), VECTORS)
def test_xts_gives_the_ciphertext_of_the_standard(key, tweak, unit, first, last):
    spec = Spec("aes-128" if len(key) == 32 else "aes-256")
    got = encrypted(spec, bytes.fromhex(key + tweak), unit, COUNT)
    assert got[:16].hex() == first
    assert got[-16:].hex() == last


def one_sector(spec, key, sector, data, encrypting):
    """Encrypt one sector by the library's own modes."""
    number = sector & 0xFFFFFFFF if spec.generator == "plain" else sector
    size = 8 if spec.family == "cast5" else 16
    vector = number.to_bytes(8, "little").ljust(size, b"\0")
    if spec.generator == "essiv":
        digest = hashes.Hash(hashes.SHA256())
        digest.update(key)
        vector = Cipher(algorithms.AES(digest.finalize()), modes.ECB()).encryptor().update(vector)
    mode = {
        "xts": lambda: modes.XTS(vector),
        "cbc": lambda: modes.CBC(vector),
        "ctr": lambda: modes.CTR(vector),
        "ecb": modes.ECB,
    }[spec.mode]()
    cipher = Cipher((CAST5 if spec.family == "cast5" else algorithms.AES)(key), mode)
    step = cipher.encryptor() if encrypting else cipher.decryptor()
    return step.update(data)


SPECS = [
    Spec(f"aes-{bits}", mode, generator, "sha256" if generator == "essiv" else None)
    for bits in (128, 192, 256)
    for mode in MODES
    for generator in GENERATORS
    if (bits, mode) != (192, "xts")  # OpenSSL's own XTS has no such keys
] + [Spec("cast5-128", "cbc", generator) for generator in ("plain", "plain64")]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SPECS), st.integers(0, 2**63 - 1), st.integers(1, 9), st.randoms())
def test_any_cipher_equals_the_librarys_sector_by_sector(spec, sector, count, random):
    key = random.randbytes(spec.key_bytes)
    data = random.randbytes(count * SECTOR)
    for run, encrypting in ((encrypted, True), (decrypted, False)):
        parts = [data[at : at + SECTOR] for at in range(0, len(data), SECTOR)]
        wanted = b"".join(
            one_sector(spec, key, sector + i, part, encrypting) for i, part in enumerate(parts)
        )
        assert run(spec, key, sector, data) == wanted


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.cipher}-{s.mode_text}")
def test_more_than_a_chunk_comes_back_in_place_and_is_what_its_parts_are(spec):
    key, data = os.urandom(spec.key_bytes), os.urandom((CHUNK * 2 + 3) * SECTOR)
    cipher = sector_cipher(spec, key, make_cipher)
    whole = bytearray(data)
    cipher.encrypt(5, memoryview(whole), memoryview(whole))
    for first, count in ((0, 1), (CHUNK - 1, 2), (CHUNK * 2 + 2, 1)):
        at, end = first * SECTOR, (first + count) * SECTOR
        assert whole[at:end] == encrypted(spec, key, 5 + first, data[at:end])
    cipher.decrypt(5, memoryview(whole), memoryview(whole))
    assert whole == data


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.cipher}-{s.mode_text}")
def test_pieces_worked_on_together_are_what_each_is_alone(spec):
    key = os.urandom(spec.key_bytes)
    cipher = sector_cipher(spec, key, make_cipher)
    places = [(9, 1), (1 << 40, 8), (3, CHUNK + 5), (0, 2), (10, 1)]
    pieces = [(first, os.urandom(count * SECTOR)) for first, count in places]
    for alone, encrypting in ((encrypted, True), (decrypted, False)):
        got = cipher.together([(at, memoryview(d)) for at, d in pieces], encrypting=encrypting)
        assert got == [alone(spec, key, at, data) for at, data in pieces]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.cipher}-{s.mode_text}")
def test_what_ends_within_a_sector_is_the_beginning_of_one(spec):
    key, data = os.urandom(spec.key_bytes), os.urandom(2 * SECTOR)
    short = data[: SECTOR + 256]
    assert encrypted(spec, key, 0, short) == encrypted(spec, key, 0, data)[: len(short)]
    assert decrypted(spec, key, 0, encrypted(spec, key, 0, short)) == short


def test_an_unaligned_buffer_is_as_good():
    spec = Spec()
    key, data = os.urandom(spec.key_bytes), os.urandom(SECTOR + 3)
    into = bytearray(SECTOR + 5)
    cipher = sector_cipher(spec, key, make_cipher)
    assert isinstance(cipher, Xts) == (spec.mode == "xts")
    cipher.encrypt(9, memoryview(data)[3:], memoryview(into)[5:])
    assert into[5:] == encrypted(spec, key, 9, data[3:])
