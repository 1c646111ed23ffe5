"""Encrypted NBD: real clients at our server, real servers for our client, and who is refused."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from compat import certificates
from compat.certificates import AUTHORITY, CLIENT, NAME, SERVER, issue
from compat.daemon import DEADLINE, Both, Daemon

from blockemu.tls.contexts import FFDHE2048

MIB = 1 << 20
IMAGE = "driver=nbd,server.type=unix,server.path=nbd.sock,export=x"
HUNG_UP = re.compile(
    r"Failed to (?:read option reply: Cannot read from|send option request header: Cannot write to)"
    r" TLS channel: (?:Software caused connection abort|Input/output error)"
)
NAMED = "tls-hostname=localhost"


@dataclass
class People:
    """Folders of those who meet."""

    path: Path

    def object(self, who: str, kind: str = "tls-creds-x509", more: str = "") -> str:
        endpoint = "server" if "server" in who else "client"
        return f"{kind},id=tls0,dir={self.path / who},endpoint={endpoint}{more}"


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    path = tmp_path_factory.mktemp("people")
    authority = issue(AUTHORITY)
    stranger = issue(replace(AUTHORITY, names={NAME.COMMON_NAME: "Stranger"}, key=1))
    folder = certificates.folder
    folder(path / "server", "server", issue(SERVER, authority), authority)
    folder(
        path / "expired-server",
        "server",
        issue(replace(SERVER, days=(-2, -1)), authority),
        authority,
    )
    folder(path / "client", "client", issue(CLIENT, authority), authority)
    far = replace(CLIENT, names=CLIENT.names | {NAME.COUNTRY_NAME: "South Pacific"})
    folder(path / "far-client", "client", issue(far, authority), authority)
    folder(path / "expired", "client", issue(replace(CLIENT, days=(-2, -1)), authority), authority)
    folder(path / "stranger", "client", issue(CLIENT, stranger), stranger)
    folder(path / "impostor", "client", issue(CLIENT, stranger), authority)
    revoked = issue(CLIENT, authority)
    folder(path / "revoked", "client", revoked, authority)
    folder(path / "strict-server", "server", issue(SERVER, authority), authority)
    (path / "strict-server" / "ca-crl.pem").write_bytes(certificates.revoked(authority, revoked))
    folder(path / "nobody", "client", issue(CLIENT, authority), authority)
    for name in ("client-cert.pem", "client-key.pem"):
        (path / "nobody" / name).unlink()
    for name in ("server", "expired-server", "strict-server"):  # else QEMU makes some, slowly
        (path / name / "dh-params.pem").write_bytes(FFDHE2048)
    return People(path)


def run(daemon: Daemon, *argv: str) -> tuple[int, str]:
    """Run a client where the daemon's socket is; return its exit status and what it said.

    It is a race what a client was about to do when the server hangs up.
    """
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=DEADLINE, check=False, cwd=daemon.folder
    )
    said = (done.stdout + done.stderr).replace(str(daemon.folder), "DIR")
    return done.returncode, HUNG_UP.sub("HUNG UP", said)


def serve(daemon: Daemon, **options: str) -> None:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    address = {"type": "unix", "data": {"path": str(daemon.folder / "nbd.sock")}}
    daemon("nbd-server-start", {"addr": address, "tls-creds": "tls0"} | named)
    file = daemon.folder / "disk"
    file.write_bytes(bytes(range(256)) * (MIB // 256) + bytes(7 * MIB))
    disk = {"driver": "file", "filename": str(file)}
    daemon("blockdev-add", {"driver": "raw", "node-name": "disk", "file": disk})
    export = {"type": "nbd", "id": "e", "node-name": "disk", "name": "x", "writable": True}
    daemon("block-export-add", export)


def compare(both: Both, ask: Callable[[Daemon], object], *options: str, **more: str) -> None:
    """Have ``ask`` of servers what they say to their clients and print, and compare."""
    heard: dict[str, object] = {}

    def script(daemon: Daemon) -> None:
        serve(daemon, **more)
        heard[daemon.kind] = ask(daemon)
        daemon("nbd-server-stop")
        printed = daemon.errors().splitlines()
        heard[f"{daemon.kind} prints"] = [line.removeprefix(f"{daemon.kind}: ") for line in printed]

    both(script, *options)
    real, printed, ours, ours_printed = heard.values()
    assert ours == real
    assert ours_printed == printed


def infos(daemon: Daemon, people: People, who: str, *images: str, more: str = "") -> list[object]:
    info = ["qemu-img", "info", "--image-opts", "--object", people.object(who, more=more)]
    return [(who, run(daemon, *info, f"{IMAGE},tls-creds=tls0,{image}")) for image in images]


def test_clients_are_served_and_refused_alike(both: Both, people: People) -> None:
    def ask(daemon: Daemon) -> list[object]:
        names = (NAMED, "tls-hostname=elsewhere", "export=x")
        return [
            infos(daemon, people, "client", *names),
            infos(daemon, people, "nobody", *names),
            infos(daemon, people, "nobody", "export=x", more=",verify-peer=off"),
            run(daemon, "qemu-img", "info", "--image-opts", IMAGE),
            run(daemon, "qemu-nbd", "--list", "-k", "nbd.sock"),
            run(daemon, "nbdinfo", "nbd+unix:///x?socket=nbd.sock"),
        ]

    compare(both, ask, "--object", people.object("server"))


def test_clients_of_another_authority_are_refused(both: Both, people: People) -> None:
    def ask(daemon: Daemon) -> list[object]:
        return [
            infos(daemon, people, who, NAMED, "tls-hostname=elsewhere")
            for who in ("stranger", "impostor")
        ]

    compare(both, ask, "--object", people.object("server"))


def test_a_server_that_verifies_nobody_serves_all(both: Both, people: People) -> None:
    def ask(daemon: Daemon) -> list[object]:
        return [infos(daemon, people, who, NAMED) for who in ("client", "impostor", "nobody")]

    compare(both, ask, "--object", people.object("server", more=",verify-peer=off"))


def test_revoked_and_expired_clients_are_refused(both: Both, people: People) -> None:
    def ask(daemon: Daemon) -> list[object]:
        careless = ",sanity-check=off"
        return [
            infos(daemon, people, who, NAMED, more=careless)
            for who in ("client", "revoked", "expired")
        ]

    compare(both, ask, "--object", people.object("strict-server"))


def test_an_expired_server_is_refused(both: Both, people: People) -> None:
    def ask(daemon: Daemon) -> list[object]:
        return infos(daemon, people, "client", NAMED)

    compare(both, ask, "--object", people.object("expired-server", more=",sanity-check=off"))


DN = "CN=client.example.org,O=People\\, and others"
RULES = [
    f"authz-simple,id=authz0,identity={DN.replace(',', ',,')}",
    "authz-list,id=authz0,rules.0.match=*CN=client*,rules.0.policy=allow,rules.0.format=glob",
    "authz-list,id=authz0,policy=allow,rules.0.match=*and?others*,rules.0.policy=deny,rules.0.format=glob",
    "authz-list,id=other",
    "iothread,id=authz0",
]


@pytest.mark.parametrize("rule", RULES)
def test_those_who_may_not_come_in_are_refused(both: Both, people: People, rule: str) -> None:
    def ask(daemon: Daemon) -> list[object]:
        return [infos(daemon, people, who, NAMED) for who in ("client", "far-client")]

    objects = ["--object", people.object("server"), "--object", rule]
    compare(both, ask, *objects, tls_authz="authz0")


def test_libnbd_reads_and_writes_what_is_on_an_encrypted_disk(both: Both, people: People) -> None:
    def ask(daemon: Daemon) -> list[object]:
        uri = f"nbds+unix://localhost/x?socket={daemon.folder}/nbd.sock&tls-certificates={people.path}/client"
        (daemon.folder / "noise").write_bytes(bytes(range(255, -1, -1)) * (4 * MIB // 256))
        return [
            run(daemon, "nbdinfo", "--json", uri),
            run(daemon, "nbdinfo", "--map", uri),
            run(daemon, "nbdcopy", uri, "copy"),
            (daemon.folder / "copy").read_bytes() == (daemon.folder / "disk").read_bytes(),
            run(daemon, "nbdcopy", "noise", uri),
            (daemon.folder / "disk").read_bytes()[: 4 * MIB]
            == (daemon.folder / "noise").read_bytes(),
            run(daemon, "nbdcopy", uri, "copy"),
            (daemon.folder / "copy").read_bytes() == (daemon.folder / "disk").read_bytes(),
        ]

    compare(both, ask, "--object", people.object("server"))


def test_nobody_in_particular_is_served_with_anonymous_keys(both: Both, people: People) -> None:
    def ask(daemon: Daemon) -> list[object]:
        info = ["qemu-img", "info", "--image-opts", "--object", "tls-creds-anon,id=tls0"]
        io = ["qemu-io", "-c", "read -P 0 1M 7M", "--object", "tls-creds-anon,id=tls0"]
        image = f"{IMAGE},tls-creds=tls0"
        return [run(daemon, *info, image), run(daemon, *io, "--image-opts", image)[0]]

    compare(both, ask, "--object", "tls-creds-anon,id=tls0,endpoint=server")
