"""An encrypted stream carries what a plain one does, however much and however slowly."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from blockemu.drivers.nbd.channel import Channel
from blockemu.errors import QmpError
from blockemu.nbd import wire
from blockemu.nbd.client import ExportInfo
from blockemu.tls.credentials import TlsCredsX509
from blockemu.tls.session import connect
from blockemu.tls.stream import TlsStream

BLOCK = 3 << 20


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate for localhost, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, plain)
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def exactly(sock: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def answer(sock: ssl.SSLSocket) -> None:
    """Take writes; answer reads with what was written last."""
    written = b""
    while True:
        head = wire.REQUEST.unpack(exactly(sock, wire.REQUEST.size))
        _, _, command, cookie, _, length = head
        if command == wire.CMD_DISC:
            return
        if command == wire.CMD_WRITE:
            written = exactly(sock, length)
        reply = wire.SIMPLE.pack(wire.SIMPLE_MAGIC, 0, cookie)
        sock.sendall(reply + (written if command == wire.CMD_READ else b""))


def with_server(
    certificate: Path,
    client: Callable[[socket.socket], object],
    serve: Callable[[ssl.SSLSocket], None],
) -> None:
    ours, theirs = socket.socketpair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def run() -> None:
        try:
            with context.wrap_socket(theirs, server_side=True) as sock:
                serve(sock)
        except (EOFError, OSError):
            theirs.close()

    thread = threading.Thread(target=run)
    thread.start()
    ours.setblocking(False)
    try:
        client(ours)
    finally:
        ours.close()
        thread.join(30)


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def credentials(context: ssl.SSLContext) -> TlsCredsX509:
    """Return what a client uses, without looking at files."""
    made = TlsCredsX509()
    made.context = context
    return made


def test_large_writes_and_reads_go_through(certificate: Path) -> None:
    data = bytes(range(256)) * (BLOCK // 256)

    async def run(sock: socket.socket) -> None:
        stream = TlsStream(sock, trusting(certificate), hostname="localhost")
        await stream.handshake()
        channel = Channel(stream)
        channel._transmission.info = ExportInfo()
        for _ in range(2):
            command = await channel.request(wire.CMD_WRITE, 0, BLOCK, payload=memoryview(data))
            assert not command.error
            assert not command.lost
            buffer = bytearray(BLOCK)
            await channel.request(wire.CMD_READ, 0, BLOCK, buf=memoryview(buffer))
            assert buffer == data
        channel.close()

    with_server(certificate, lambda sock: asyncio.run(run(sock)), answer)


def test_a_certificate_for_somebody_else_is_refused(certificate: Path) -> None:
    async def run(sock: socket.socket) -> None:
        with pytest.raises(
            QmpError, match=r"^Certificate does not match the hostname example.org$"
        ):
            await connect(sock, credentials(trusting(certificate)), "example.org")

    with_server(certificate, lambda sock: asyncio.run(run(sock)), answer)


def test_a_certificate_of_an_unknown_issuer_is_refused(certificate: Path) -> None:
    async def run(sock: socket.socket) -> None:
        with pytest.raises(QmpError, match=r"^The certificate hasn't got a known issuer$"):
            await connect(sock, credentials(ssl.create_default_context()), "localhost")

    with_server(certificate, lambda sock: asyncio.run(run(sock)), answer)


def test_a_certificate_is_of_no_use_without_a_name_to_compare(certificate: Path) -> None:
    async def run(sock: socket.socket) -> None:
        with pytest.raises(QmpError, match=r"^No hostname for certificate validation$"):
            await connect(sock, credentials(trusting(certificate)), None)

    with_server(certificate, lambda sock: asyncio.run(run(sock)), answer)


def test_garbage_in_place_of_keys_is_refused() -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            with pytest.raises(QmpError, match=r"^TLS handshake failed: "):
                await connect(ours, credentials(ssl.create_default_context()), "localhost")

    asyncio.run(run())


def test_a_server_that_hangs_up_loses_the_request(certificate: Path) -> None:
    async def run(sock: socket.socket) -> None:
        stream = TlsStream(sock, trusting(certificate), hostname="localhost")
        await stream.handshake()
        channel = Channel(stream)
        command = await channel.request(wire.CMD_READ, 0, 512, buf=memoryview(bytearray(512)))
        assert command.lost == wire.EIO
        channel.close()

    with_server(certificate, lambda sock: asyncio.run(run(sock)), lambda sock: None)
