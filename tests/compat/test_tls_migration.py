"""Encrypted migration between ours and QEMU's empty machine, and who is refused."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from compat.certificates import AUTHORITY, CLIENT, NAME, SERVER, folder, issue
from compat.daemon import DEADLINE, Both, Daemon
from compat.test_migration import KINDS, OPTIONS, Kind, Ours, Real, set_capabilities, sha

from blockemu.tls.contexts import FFDHE2048

CAPABILITIES = ("events", "dirty-bitmaps")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("people")
    authority = issue(AUTHORITY)
    stranger = issue(replace(AUTHORITY, names={NAME.COMMON_NAME: "Stranger"}, key=1))
    folder(path / "server", "server", issue(SERVER, authority), authority)
    (path / "server" / "dh-params.pem").write_bytes(FFDHE2048)
    folder(path / "client", "client", issue(CLIENT, authority), authority)
    folder(path / "stranger", "client", issue(CLIENT, stranger), stranger)
    return path


class Pair:
    """A machine with a bitmap, and one that waits for it; both know how to encrypt."""

    def __init__(self, folder: Path, sender: Kind, receiver: Kind) -> None:
        self.path = folder / "stream"
        self.another = lambda: sender(folder / "another", *OPTIONS)
        self.here = sender(folder / "here", *OPTIONS)
        self.there = receiver(folder / "there", *OPTIONS, "-incoming", "defer")

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *exc: object) -> None:
        self.here.close()
        self.there.close()

    def prepare(self, people: Path, *, kind: str = "x509", client: str = "client") -> str:
        for daemon, endpoint, who in (
            (self.here, "client", client),
            (self.there, "server", "server"),
        ):
            set_capabilities(daemon, *CAPABILITIES)
            encrypt(daemon, kind, endpoint, people / who)
        return self.fill()

    def fill(self) -> str:
        self.here("block-dirty-bitmap-add", node="n", name="a", granularity=512)
        line = 'qemu-io n "write 1M 3M"'
        self.here("human-monitor-command", {"command-line": line})
        return sha(self.here, "a")

    def wait(self) -> None:
        self.there("migrate-incoming", uri=f"unix:{self.path}")

    def migrate(self, uri: str = "") -> str:
        self.here("migrate", uri=uri or f"unix:{self.path}")
        ends = ("completed", "failed")
        data = self.here.wait("MIGRATION", lambda told: told["status"] in ends)
        return str(data["status"])


def encrypt(daemon: Daemon, kind: str, endpoint: str, keys: Path) -> None:
    daemon("object-add", qom_type=f"tls-creds-{kind}", id="tls0", dir=str(keys), endpoint=endpoint)
    daemon("migrate-set-parameters", tls_creds="tls0")


@pytest.fixture
def pair(tmp_path: Path, program: Callable[[str], str]) -> Callable[[Kind, Kind], Pair]:
    program("qemu-system-x86_64")
    return lambda sender, receiver: Pair(tmp_path, sender, receiver)


Make = Callable[[Kind, Kind], Pair]


@KINDS
@pytest.mark.parametrize(
    ("kind", "way", "postcopy"),
    [("x509", "unix", True), ("x509", "tcp", False), ("anon", "unix", False)],
)
def test_bitmaps_arrive(
    pair: Make, people: Path, sender: Kind, receiver: Kind, kind: str, way: str, postcopy: bool
) -> None:
    with pair(sender, receiver) as both:
        held = both.prepare(people, kind=kind)
        both.there("migrate-set-parameters", tls_authz="everybody")
        both.there("object-add", qom_type="authz-list", id="everybody", policy="allow")
        uri = "tcp:localhost:0" if way == "tcp" else f"unix:{both.path}"
        both.there("migrate-incoming", uri=uri)
        if way == "tcp":
            (address, *_) = both.there("query-migrate")["socket-address"]
            uri = f"tcp:localhost:{address['port']}"
        elif kind == "x509":
            both.here("migrate-set-parameters", tls_hostname="localhost")
        both.here("migrate", uri=uri)
        if postcopy:
            both.here("migrate-start-postcopy")
        for daemon in (both.here, both.there):
            daemon.wait("MIGRATION", lambda data: data["status"] == "completed")
        assert sha(both.there, "a") == held
        assert both.here.stop() == both.there.stop() == 0


REFUSED: dict[str, tuple[dict[str, str], dict[str, str]]] = {  # parameters here, and there
    "of-no-name": ({}, {}),
    "of-another-name": ({"tls-hostname": "example.org"}, {}),
    "by-nobody": ({"tls-hostname": "localhost"}, {"tls-authz": "nobody"}),
    "by-who-is-not-there": ({"tls-hostname": "localhost"}, {"tls-authz": "none"}),
    "by-default": ({"tls-hostname": "localhost"}, {"tls-authz": ""}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_who_is_refused_is_told_alike(
    tmp_path: Path, program: Callable[[str], str], people: Path, name: str
) -> None:
    program("qemu-system-x86_64")
    told = []
    for kind in (Real, Ours):
        with Pair(tmp_path / kind.kind, kind, kind) as both:
            both.prepare(people)
            both.there("object-add", qom_type="authz-list", id="nobody", policy="deny")
            here, there = REFUSED[name]
            both.here("migrate-set-parameters", here)
            both.there("migrate-set-parameters", {"tls-authz": "nobody"} | there)
            set_capabilities(both.here, "return-path")  # else it may be away before it is refused
            both.wait()
            status = both.migrate()
            both.here("query-status")
            error = both.here("query-migrate").get("error-desc", "")
            waits = both.there("query-status")["status"]
            both.there.stop()
            both.here.stop()
            lines = both.there.errors().replace(kind.kind, "program").splitlines()
            if name == "of-another-name":  # OpenSSL's client says so earlier than GnuTLS's
                lines.clear()
            if name.startswith("by"):  # whether it hears of that while it sends depends on time
                error = ""
            told.append((status, error, waits, lines))
    assert told[1] == told[0]


@pytest.mark.parametrize("kind", [Real, Ours], ids=["real", "ours"])
def test_a_machine_stays_if_the_other_side_speaks_in_clear_text(
    pair: Make, people: Path, kind: Kind
) -> None:
    with pair(kind, kind) as both:
        both.prepare(people, kind="anon")
        both.there("migrate-set-parameters", tls_creds="")
        both.wait()
        assert both.migrate() == "failed"
        assert both.here("query-migrate")["error-desc"].startswith("TLS handshake failed: ")
        assert both.here("query-status")["status"] == "running"
        assert both.here.stop() == 0
        assert both.there.ended() == 1
        assert both.there.errors().partition(": ")[2] == (
            "Not a migration stream\n"
            f"{both.there.kind}: load of migration failed: Invalid argument\n"
        )


@pytest.mark.parametrize("kind", [Real, Ours], ids=["real", "ours"])
def test_who_speaks_in_clear_text_is_not_heard(pair: Make, people: Path, kind: Kind) -> None:
    """And whoever comes then is.

    That is another machine: one of QEMU's that failed while it sent may be asked to send again
    before it has put its first stream away, and breaks down.
    """
    with pair(kind, kind) as both:
        both.prepare(people, kind="anon")
        both.here("migrate-set-parameters", tls_creds="")
        both.wait()
        set_capabilities(both.here, "return-path")
        assert both.migrate() == "failed"
        assert both.there("query-status")["status"] == "inmigrate"
        assert both.here.stop() == 0
        both.here = both.another()
        set_capabilities(both.here, *CAPABILITIES)
        encrypt(both.here, "anon", "client", people / "client")
        held = both.fill()
        assert both.migrate() == "completed"
        both.there.wait("MIGRATION", lambda data: data["status"] == "completed")
        assert sha(both.there, "a") == held
        assert "TLS handshake failed: " in both.there.errors()
        assert both.here.stop() == both.there.stop() == 0


@pytest.mark.parametrize("uri", ["exec:cat >/dev/null", "unix:none", "fd:none"])
def test_credentials_that_cannot_be_used_are_told_alike(both: Both, people: Path, uri: str) -> None:
    def script(daemon: Daemon) -> None:
        set_capabilities(daemon, "events")
        daemon("object-add", qom_type="secret", id="secret", data="x")
        daemon(
            "object-add",
            qom_type="tls-creds-anon",
            id="server",
            dir=str(people / "server"),
            endpoint="server",
        )
        for name in ("none", "secret", "server"):
            daemon("migrate-set-parameters", tls_creds=name)
            daemon.execute("migrate", uri=uri)
            if uri[:3] != "fd:":
                daemon.wait("MIGRATION", lambda data: data["status"] == "failed")
            daemon("query-migrate")
        daemon("query-status")

    both(script, oracle=Real, ours=Ours)


def test_it_can_be_cancelled_while_keys_are_agreed_on(
    pair: Make, people: Path, tmp_path: Path
) -> None:
    """QEMU answers nothing until the other side does."""
    with pair(Ours, Ours) as both, socket.socket(socket.AF_UNIX) as listener:
        both.prepare(people, kind="anon")
        listener.settimeout(DEADLINE)
        listener.bind(str(tmp_path / "silent"))
        listener.listen()
        both.here("migrate", uri=f"unix:{tmp_path}/silent")
        there, _ = listener.accept()
        with there:
            there.settimeout(DEADLINE)
            assert there.recv(1)
            assert both.here("query-migrate") == {"status": "setup"}
            both.here("migrate_cancel")
            both.here.wait("MIGRATION", lambda data: data["status"] == "cancelling")
        both.here.wait("MIGRATION", lambda data: data["status"] == "cancelled")
        assert both.here("query-migrate") == {"status": "cancelled"}
        assert both.here("query-status")["status"] == "running"
        both.wait()
        assert both.migrate() == "completed"
        assert both.here.stop() == both.there.stop() == 0
