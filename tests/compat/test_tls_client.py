"""Our NBD client and QEMU's at encrypted servers: connected and refused in the same words."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compat import certificates
from compat.certificates import AUTHORITY, CLIENT, NAME, SERVER, issue
from compat.daemon import Both, Daemon
from compat.test_nbd_client_servers import nbdkit, qemu_nbd, running

from blockemu.nbd import wire
from blockemu.tls.contexts import FFDHE2048

# It is a race what a client was about to do when the server hangs up.
HUNG_UP = re.compile(
    r"Failed to .*: Cannot (?:read from|write to) TLS channel: .*"
    r"|TLS handshake failed: (?:Error in the push function|The TLS connection was non-properly terminated)\."
)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of folders: a server, those it knows, and others."""
    path = tmp_path_factory.mktemp("people")
    authority = issue(AUTHORITY)
    stranger = issue(replace(AUTHORITY, names={NAME.COMMON_NAME: "Stranger"}, key=1))
    old = issue(replace(SERVER, days=(-2, -1)), authority)
    certificates.folder(path / "server", "server", issue(SERVER, authority), authority)
    certificates.folder(path / "old-server", "server", old, authority)
    certificates.folder(path / "client", "client", issue(CLIENT, authority), authority)
    certificates.folder(path / "stranger", "client", issue(CLIENT, stranger), stranger)
    certificates.folder(path / "nobody", "client", issue(CLIENT, authority), authority)
    for name in ("client-cert.pem", "client-key.pem"):
        (path / "nobody" / name).unlink()
    for name in ("server", "old-server"):  # else QEMU makes some, which takes it a while
        (path / name / "dh-params.pem").write_bytes(FFDHE2048)
    return path


def add(daemon: Daemon, path: Path, **options: object) -> Any:
    """Try to open the disk that a server offers; close it if that was possible."""
    node = {"driver": "nbd", "node-name": "n", "server": {"type": "unix", "path": str(path)}}
    named = {name.replace("_", "-"): value for name, value in options.items()}
    daemon.recording = False
    reply = daemon.execute("blockdev-add", node | named)
    if "return" in reply:
        daemon("blockdev-del", node_name="n")
        return reply
    return HUNG_UP.sub("HUNG UP", reply["error"]["desc"])


def compare(both: Both, people: Path, ask: Callable[[Daemon], object]) -> None:
    """Have what both programs say, with objects for all people, and compare."""
    heard: dict[str, object] = {}

    def script(daemon: Daemon) -> None:
        for who in ("client", "stranger", "nobody"):
            made = {"qom-type": "tls-creds-x509", "id": who, "dir": str(people / who)}
            daemon("object-add", made)
            daemon("object-add", made | {"id": f"careless-{who}", "verify-peer": False})
        daemon("object-add", {"qom-type": "tls-creds-anon", "id": "anonymous"})
        daemon("object-add", {"qom-type": "tls-creds-anon", "id": "server", "endpoint": "server"})
        heard[daemon.kind] = ask(daemon)

    both(script)
    real, ours = heard.values()
    assert ours == real


@contextmanager
def serving(folder: Path, credentials: str | None) -> Iterator[Path]:
    (folder / "disk").write_bytes(bytes(1 << 20))
    tls = [] if credentials is None else ["--object", credentials, "--tls-creds", "tls0"]
    with running(folder, *qemu_nbd(folder, "-f", "raw", *tls)):
        yield folder / "s.sock"


@pytest.mark.parametrize("server", ["server", "old-server"])
def test_those_whom_a_server_knows_are_connected(
    both: Both, people: Path, tmp_path: Path, server: str
) -> None:
    made = f"tls-creds-x509,id=tls0,dir={people / server},endpoint=server,sanity-check=off"
    with serving(tmp_path, made) as path:

        def ask(daemon: Daemon) -> list[object]:
            who = ("client", "stranger", "nobody", "careless-client", "careless-nobody")
            names = ({}, {"tls_hostname": "localhost"}, {"tls_hostname": "127.0.0.1"})
            if server == "server":  # it is not said which of two faults comes first
                names += ({"tls_hostname": "server.example.org"}, {"tls_hostname": "::1"})
            known = [add(daemon, path, tls_creds=each, **name) for each in who for name in names]
            others = ("anonymous", "server", "absent", "iothread")
            return [*known, add(daemon, path), *(add(daemon, path, tls_creds=o) for o in others)]

        compare(both, people, ask)


def test_a_server_in_clear_text_is_refused(both: Both, people: Path, tmp_path: Path) -> None:
    with serving(tmp_path, None) as path:
        name = "localhost"
        compare(both, people, lambda d: add(d, path, tls_creds="client", tls_hostname=name))


def test_a_server_that_knows_nobody_is_connected_to(
    both: Both, people: Path, tmp_path: Path
) -> None:
    with serving(tmp_path, "tls-creds-anon,id=tls0,endpoint=server") as path:
        compare(
            both,
            people,
            lambda d: [add(d, path, tls_creds=each) for each in ("anonymous", "careless-client")],
        )


def test_other_peoples_server_is_connected_to(both: Both, people: Path, tmp_path: Path) -> None:
    tls = ("--tls=require", f"--tls-certificates={people / 'server'}", "--tls-verify-peer")
    with running(tmp_path, *nbdkit(tmp_path, *tls, "memory", "1M")):

        def ask(daemon: Daemon) -> list[object]:
            path, name = tmp_path / "s.sock", "localhost"
            return [add(daemon, path, tls_creds="client", tls_hostname=name), add(daemon, path)]

        compare(both, people, ask)


PROGRAMS = [
    ("img_cli", "qemu-img", ["info", "--image-opts"]),
    ("img_cli", "qemu-img", ["map", "--output=json", "--image-opts"]),
    ("io_cli", "qemu-io", ["-c", "read -P 0 0 1M", "-c", "write -P 1 1k 3k", "--image-opts"]),
]


@pytest.mark.parametrize(("module", "real", "argv"), PROGRAMS)
def test_tools_reach_encrypted_disks(
    people: Path, tmp_path: Path, module: str, real: str, argv: list[str]
) -> None:
    ours = [
        sys.executable,
        "-c",
        f"from blockemu.programs.{module} import main; raise SystemExit(main())",
    ]
    image = "driver=nbd,path=s.sock,tls-creds=tls0"
    made = f"tls-creds-x509,id=tls0,dir={people}"
    with serving(tmp_path, f"{made}/server,endpoint=server"):
        for objects, options in (
            (f"{made}/client", ",tls-hostname=localhost"),
            (f"{made}/client", ",tls-hostname=elsewhere"),
            (f"{made}/client", ""),
            (f"{made}/absent", ""),
            ("secret,id=tls0,data=x", ""),
        ):
            said = []
            for program in ([real], ours):
                with open(tmp_path / "disk", "wb") as disk:
                    disk.truncate(1 << 20)
                done = subprocess.run(
                    [*program, *argv, "--object", objects, image + options],
                    capture_output=True,
                    text=True,
                    timeout=30,
                    check=False,
                    cwd=tmp_path,
                )
                text = done.stdout + done.stderr.replace("blockemu-", "qemu-")
                said.append((done.returncode, re.sub(r"\d+\.\d+ .*sec.*", "SPEED", text)))
            assert said[1] == said[0]


@contextmanager
def faking(folder: Path, after: bytes) -> Iterator[Path]:
    """Agree to encrypt, then say ``after`` and hang up, to whoever comes."""
    path = folder / "s.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.sendall(wire.INIT_MAGIC.to_bytes(8, "big"))
                client.sendall(wire.OPTION_MAGIC.to_bytes(8, "big") + b"\0\3")
                client.recv(20, socket.MSG_WAITALL)
                head = (wire.REPLY_MAGIC, wire.OPT_STARTTLS, wire.REP_ACK, 0)
                client.sendall(wire.OPTION_REPLY.pack(*head) + after)
                client.shutdown(socket.SHUT_WR)
                with suppress(ConnectionResetError):
                    while client.recv(1 << 16):
                        pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield path
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)


@pytest.mark.parametrize(
    "after",
    [
        b"",
        b"HTTP/1.0 400 Bad Request\r\n\r\n",
        bytes(1000),
        b"\x15\x03\x03\0\2\2\x28",
        b"\x15\x03\x03\0\2\1\0",
        b"\x16\x03\x03\0\4\2\0\0\0",
        b"\x17\x03\x03\0\4\2\0\0\0",
    ],
)
def test_servers_that_do_not_know_how_to_encrypt(
    both: Both, people: Path, tmp_path: Path, after: bytes
) -> None:
    with faking(tmp_path, after) as path:
        name = "localhost"
        compare(both, people, lambda d: add(d, path, tls_creds="client", tls_hostname=name))
