"""Credentials and those who may come in, as objects: made, shown and refused alike."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compat import certificates
from compat.certificates import AUTHORITY, CLIENT, NAME, PURPOSE, SERVER, Issued, Wanted, issue
from compat.daemon import Both, Daemon

Change = Callable[[Path], object]
Script = Callable[[Daemon], object]


class Folders:
    """Makes folders of certificates, and asks for the credentials in them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.authority = issue(AUTHORITY)
        self.steps: list[tuple[str, Any]] = []

    def add(
        self,
        role: str = "server",
        wanted: Wanted | None = None,
        *,
        issuer: Issued | None = None,
        selfsigned: bool = False,
        authorities: list[Issued] | None = None,
        change: Change | None = None,
        **members: object,
    ) -> None:
        number = len(self.steps)
        if wanted is None:
            wanted = SERVER if role == "server" else CLIENT
        made = issue(wanted, None if selfsigned else issuer or self.authority)
        known = [self.authority] if authorities is None else authorities
        path = certificates.folder(self.path / f"f{number}", role, made, *known)
        if change is not None:
            change(path)
        options = {"qom-type": "tls-creds-x509", "id": f"t{number}", "dir": str(path)}
        named = {name.replace("_", "-"): value for name, value in members.items()}
        self.steps.append(("object-add", options | {"endpoint": role} | named))

    def script(self) -> Script:
        return lambda daemon: [daemon.execute(*step) for step in self.steps]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "certificates")


def writes(name: str, data: bytes) -> Change:
    return lambda path: (path / name).write_bytes(data)


def removes(name: str) -> Change:
    return lambda path: (path / name).unlink()


def becomes_folder(name: str) -> Change:
    def change(path: Path) -> None:
        (path / name).unlink(missing_ok=True)
        (path / name).mkdir()

    return change


def pem(kind: str, body: str = "AAAA") -> bytes:
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n".encode()


def other(**changes: Any) -> Issued:
    return issue(replace(AUTHORITY, **changes))


def test_files_that_are_missing_or_hold_something_else(folders: Folders, both: Both) -> None:
    for name in ("ca-cert.pem", "server-cert.pem", "server-key.pem"):
        folders.add(change=removes(name))
        for sane in ({}, {"sanity_check": False}):
            for change in (
                becomes_folder(name),
                writes(name, b""),
                writes(name, b"junk\0" + pem("CERTIFICATE")),
                writes(name, pem("CERTIFICATE")),
                writes(name, pem("CERTIFICATE", "!!")),
                writes(name, pem("X509 CERTIFICATE")),
                writes(name, pem("PRIVATE KEY")),
                writes(name, pem("EC PRIVATE KEY")),
            ):
                folders.add(change=change, **sane)
    for name in ("client-cert.pem", "client-key.pem"):
        folders.add("client", change=removes(name))
        folders.add("client", change=writes(name, b""))
    folders.add("client", change=removes("ca-cert.pem"))
    for name in ("ca-crl.pem", "dh-params.pem"):
        for role in ("server", "client"):
            folders.add(role, change=writes(name, b""))
            folders.add(role, change=writes(name, b"junk"))
            folders.add(role, change=becomes_folder(name))
            folders.add(role, change=writes(name, pem("X509 CRL")))
    both(folders.script())


def test_keys_that_do_not_fit_or_are_locked(folders: Folders, both: Both) -> None:
    locked = certificates.private(0, certificates.serialization.BestAvailableEncryption(b"pw"))
    secrets = {"s": "pw", "wrong": "no"}
    for name, data in secrets.items():
        folders.steps.append(("object-add", {"qom-type": "secret", "id": name, "data": data}))
    latin = {"qom-type": "secret", "id": "latin", "data": "/w==", "format": "base64"}
    folders.steps.append(("object-add", latin))
    folders.add(change=writes("server-key.pem", certificates.private(1)))
    for members in [{}, *({"passwordid": name} for name in ("s", "wrong", "latin", "absent"))]:
        folders.add(change=writes("server-key.pem", locked), **members)
    folders.add(passwordid="s")
    folders.add("client", change=removes("client-key.pem"), passwordid="absent")
    both(folders.script())


def test_certificates_that_say_the_wrong_things(folders: Folders, both: Both) -> None:
    past, future = (-2, -1), (1, 2)
    for days in (past, future):
        folders.add(wanted=replace(SERVER, days=days))
        folders.add("client", replace(CLIENT, days=days))
        folders.add(authorities=[other(days=days)])
        folders.add(wanted=replace(SERVER, days=days), sanity_check=False)
    folders.add(wanted=replace(SERVER, authority=True))
    folders.add("client", replace(CLIENT, authority=True))
    folders.add(wanted=replace(SERVER, authority=False))
    for authority in (False, None):
        folders.add(authorities=[other(authority=authority)])
    for critical in (False, True):
        folders.add(authorities=[other(usage=({"digital_signature"}, critical))])
        folders.add(wanted=replace(SERVER, usage=({"key_encipherment"}, critical)))
        folders.add(wanted=replace(SERVER, purposes=([PURPOSE.CLIENT_AUTH], critical)))
        folders.add("client", replace(CLIENT, purposes=([PURPOSE.SERVER_AUTH], critical)))
        folders.add(wanted=replace(SERVER, purposes=([PURPOSE.ANY_EXTENDED_KEY_USAGE], critical)))
    folders.add(authorities=[other(usage=None)])
    folders.add(wanted=replace(SERVER, usage=None, purposes=None))
    both(folders.script())


def test_certificates_that_others_issued(folders: Folders, both: Both) -> None:
    stranger = other(names={NAME.COMMON_NAME: "Other"}, key=1)
    below = issue(replace(AUTHORITY, names={NAME.COMMON_NAME: "Below"}, key=2), folders.authority)
    folders.add(authorities=[stranger])
    folders.add(authorities=[other(key=1)])
    folders.add(authorities=[other(key=1), folders.authority])
    folders.add(authorities=[stranger, folders.authority])
    folders.add(authorities=[stranger] * 15 + [folders.authority])
    folders.add(authorities=[stranger] * 16 + [folders.authority])
    folders.add(authorities=[stranger] * 16 + [folders.authority], sanity_check=False)
    folders.add(authorities=[stranger], sanity_check=False)
    folders.add(selfsigned=True)
    folders.add(issuer=below)
    folders.add(issuer=below, authorities=[below, folders.authority])
    folders.add(issuer=below, authorities=[below])
    revoked = certificates.revoked(folders.authority)
    folders.add(change=writes("ca-crl.pem", revoked))
    folders.add(change=writes("ca-crl.pem", revoked[:-40]))
    both(folders.script())


def test_properties_are_shown_and_set_alike(folders: Folders, both: Both) -> None:
    folders.add()
    folders.add("client", priority="NORMAL", verify_peer=False, passwordid="p")
    kinds = ["tls-creds", "tls-creds-x509", "tls-creds-anon", "tls-creds-psk"]
    kinds += ["authz", "authz-list", "authz-simple"]
    names = ["dir", "endpoint", "loaded", "passwordid", "priority", "sanity-check", "verify-peer"]
    rules = [
        {"match": "a*", "policy": "deny", "format": "glob"},
        {"match": "b", "policy": "allow"},
    ]
    steps = [
        ("object-add", {"qom-type": "tls-creds-anon", "id": "a"}),
        ("object-add", {"qom-type": "tls-creds-anon", "id": "b", "endpoint": "server"}),
        ("object-add", {"qom-type": "tls-creds-anon", "id": "c", "dir": "/nonexistent"}),
        ("object-add", {"qom-type": "tls-creds-anon", "id": "d", "loaded": True}),
        ("object-add", {"qom-type": "tls-creds-anon", "id": "d", "endpoint": "both"}),
        ("object-add", {"qom-type": "tls-creds-x509", "id": "d"}),
        ("object-add", {"qom-type": "tls-creds-x509", "id": "d", "dir": "/nonexistent"}),
        ("object-add", {"qom-type": "authz-simple", "id": "simple"}),
        ("object-add", {"qom-type": "authz-simple", "id": "simple", "identity": "x"}),
        ("object-add", {"qom-type": "authz-list", "id": "list", "rules": rules}),
        ("object-add", {"qom-type": "authz-list", "id": "empty", "policy": "allow"}),
        ("object-add", {"qom-type": "authz-list", "id": "bad", "rules": [{"match": "x"}]}),
        ("object-add", {"qom-type": "authz-listfile", "id": "bad", "filename": "/x"}),
        ("object-add", {"qom-type": "authz-list-file", "id": "bad", "filename": "/x"}),
        ("object-add", {"qom-type": "authz-pam", "id": "bad", "service": "x"}),
        *(("qom-get", {"path": f"t{n}", "property": name}) for n in (0, 1) for name in names),
        *(("qom-get", {"path": "list", "property": name}) for name in ("policy", "rules")),
        ("qom-get", {"path": "empty", "property": "rules"}),
        ("qom-get", {"path": "simple", "property": "identity"}),
        ("qom-set", {"path": "t0", "property": "loaded", "value": True}),
        ("qom-set", {"path": "t0", "property": "endpoint", "value": "client"}),
        ("qom-get", {"path": "t0", "property": "endpoint"}),
        ("qom-set", {"path": "list", "property": "rules", "value": rules[:1]}),
        ("qom-get", {"path": "list", "property": "rules"}),
        *(("qom-list", {"path": path}) for path in ("t0", "a", "list", "simple")),
        *(("qom-list-properties", {"typename": kind}) for kind in kinds),
    ]
    folders.steps += steps
    both(folders.script())


def test_shared_keys_are_looked_for_alike(tmp_path: Path, both: Both) -> None:
    path = tmp_path / "keys"
    path.mkdir()
    texts = ["", "junk", "qemu:zz", "qemu:00ff", "qemu:", "x:00ff00ff", "qemu:00f", "qemu:00 0"]
    steps: list[dict[str, Any]] = [
        {"endpoint": "server", "username": "x"},
        {"endpoint": "server"},
        {},
        {"dir": str(tmp_path)},
        {"dir": str(path), "endpoint": "server", "username": "x"},
        {"dir": str(path), "username": "x"},
    ]
    for number, text in enumerate(texts):
        (path / f"{number}").mkdir()
        (path / f"{number}" / "keys.psk").write_text(text + "\n")
        steps.append({"dir": str(path / f"{number}")})

    def script(daemon: Daemon) -> None:
        for step in steps:
            daemon.execute("object-add", {"qom-type": "tls-creds-psk", "id": "p"} | step)

    both(script)


@pytest.mark.parametrize(
    "kind", ["tls-creds-x509", "tls-creds-anon", "tls-creds-psk", "authz-list", "authz-simple"]
)
def test_programs_say_what_can_be_set(kind: str) -> None:
    said = [
        subprocess.run(
            [*program, "--object", f"{kind},help"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        for program in (["qemu-storage-daemon"], [sys.executable, "-m", "blockemu"])
    ]
    assert said[0] == said[1]
