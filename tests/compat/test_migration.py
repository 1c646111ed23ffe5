"""Migration between ours and QEMU's empty machine, whichever sends and whichever receives."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from compat.daemon import DEADLINE, Blockemu, Both, Daemon, System, image

EMPTY = ["-machine", "none", "-nodefaults", "-display", "none"]
SIZE = 64 << 20
NODE = f'{{"driver": "null-co", "node-name": "n", "size": {SIZE}, "read-zeroes": true}}'
OPTIONS = ("-blockdev", NODE)
ON = ("events", "dirty-bitmaps")
Kind = type[Daemon]


class Real(System):
    """QEMU's."""

    def program(self) -> list[str]:
        return ["qemu-system-x86_64", *EMPTY]


class Ours(Blockemu):
    """Ours."""

    kind = "blockemu-qemu"

    def program(self) -> list[str]:
        return [sys.executable, "-m", "blockemu.programs.qemu_main", "--compat", "7.2", *EMPTY]

    def monitor(self, number: int) -> list[str]:
        return ["-chardev", f"socket,id=compat,fd={number}", "-mon", "chardev=compat,mode=control"]


class Sender:
    """A machine with bitmaps, and one that waits for it."""

    def __init__(self, folder: Path, sender: Kind, receiver: Kind, *options: str) -> None:
        self.path = folder / "stream"
        self.one = sender(folder / "one", *OPTIONS)
        self.other = receiver(
            folder / "other", *OPTIONS, "-incoming", f"unix:{self.path}", *options
        )

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *exc: object) -> None:
        self.one.close()
        self.other.close()

    def prepare(self) -> list[str]:
        """Make bitmaps; return what they hold."""
        for name, granularity in (("a", 512), ("b", 65536), ("c", 4096)):
            self.one("block-dirty-bitmap-add", node="n", name=name, granularity=granularity)
            line = f'qemu-io n "write {512 * granularity} 1M"'
            self.one("human-monitor-command", {"command-line": line})
        self.one("block-dirty-bitmap-disable", node="n", name="b")
        for daemon in (self.one, self.other):
            set_capabilities(daemon, *ON)
        return [sha(self.one, name) for name in "abc"]

    def migrate(self, *, postcopy: bool = False) -> None:
        self.one("migrate", uri=f"unix:{self.path}")
        if postcopy:
            self.one("migrate-start-postcopy")
        for daemon in (self.one, self.other):
            daemon.wait("MIGRATION", lambda data: data["status"] in ("completed", "failed"))


def set_capabilities(daemon: Daemon, *names: str) -> None:
    wanted = [{"capability": name, "state": True} for name in names]
    daemon("migrate-set-capabilities", capabilities=wanted)


def sha(daemon: Daemon, name: str) -> str:
    return daemon("x-debug-block-dirty-bitmap-sha256", node="n", name=name)["sha256"]


def heard(daemon: Daemon) -> list[str]:
    """Return the events of a machine; how often memory is looked at depends on time."""
    events = [value for what, value in daemon.transcript if what == "event"]
    return [
        event["event"] + str(event.get("data", {}).get("status", ""))
        for event in events
        if event["event"] != "MIGRATION_PASS"
    ]


LEFT = ["MIGRATIONsetup", "MIGRATIONactive", "STOP", "MIGRATIONcompleted"]
CAME = ["MIGRATIONactive", "RESUME", "MIGRATIONcompleted"]
KINDS = pytest.mark.parametrize(
    ("sender", "receiver"),
    [(Ours, Ours), (Ours, Real), (Real, Ours), (Real, Real)],
    ids=lambda kind: kind.__name__,
)


@pytest.fixture
def pair(tmp_path: Path, program: Callable[[str], str]) -> Callable[..., Sender]:
    program("qemu-system-x86_64")
    return lambda *kinds, **options: Sender(tmp_path, *kinds, **options)


@KINDS
def test_bitmaps_arrive(pair: Callable[..., Sender], sender: Kind, receiver: Kind) -> None:
    with pair(sender, receiver) as both:
        held = both.prepare()
        both.migrate()
        assert [sha(both.other, name) for name in "abc"] == held
        (node,) = both.other("query-named-block-nodes")
        states = {b["name"]: (b["granularity"], b["recording"]) for b in node["dirty-bitmaps"]}
        assert states == {"a": (512, True), "b": (65536, False), "c": (4096, True)}
        assert (heard(both.one), heard(both.other)) == (LEFT, CAME)
        assert both.other("query-status")["status"] == "running"
        assert both.other("query-migrate") == {"status": "completed"}
        assert both.one("query-migrate")["status"] == "completed"
        assert both.one.stop() == both.other.stop() == 0


@KINDS
def test_bitmaps_arrive_after_the_machine(
    pair: Callable[..., Sender], sender: Kind, receiver: Kind
) -> None:
    with pair(sender, receiver) as both:
        held = both.prepare()
        both.migrate(postcopy=True)
        assert [sha(both.other, name) for name in "abc"] == held
        active = "MIGRATIONpostcopy-active"
        assert heard(both.one) == [*LEFT[:2], active, *LEFT[2:]]
        # A thread of QEMU's tells the end while its main loop lets the machine run.
        if "RESUME" not in heard(both.other):
            both.other.wait("RESUME")
        begun, ended = heard(both.other)[:2], heard(both.other)[2:]
        assert begun == [CAME[0], active]
        assert ended == CAME[1:] or (receiver is Real and ended == CAME[:0:-1])
        assert both.one.stop() == both.other.stop() == 0


@KINDS
def test_the_source_goes_on_if_the_other_side_ends(
    pair: Callable[..., Sender], sender: Kind, receiver: Kind
) -> None:
    with pair(sender, receiver) as both:
        both.prepare()
        set_capabilities(both.one, "pause-before-switchover")
        both.one("migrate", uri=f"unix:{both.path}")
        both.one.wait("MIGRATION", lambda data: data["status"] == "pre-switchover")
        both.other.close()
        both.one("migrate-continue", state="pre-switchover")
        both.one.wait("MIGRATION", lambda data: data["status"] == "failed")
        both.one.wait("RESUME")
        assert both.one("query-status")["status"] == "running"
        assert both.one("query-migrate")["status"] == "failed"
        assert heard(both.one) == [
            *LEFT[:3],
            "MIGRATIONpre-switchover",
            "MIGRATIONdevice",
            "MIGRATIONfailed",
            "RESUME",
        ]


BROKEN = {
    "foreign": "echo a stream of something else",
    "older": "printf 'QEVM\\0\\0\\0\\2\\7\\0\\0\\0\\4none'",
    "newer": "printf 'QEVM\\0\\0\\0\\4\\7\\0\\0\\0\\4none'",
    "without-machine": "printf 'QEVM\\0\\0\\0\\3\\1\\0\\0\\0\\4none'",
    "of-another-machine": "printf 'QEVM\\0\\0\\0\\3\\7\\0\\0\\0\\3xen\\0'",
    "cut-off": "printf 'QEVM\\0\\0\\0\\3\\7\\0\\0\\0\\4none\\1\\0\\0'",
    "of-unknown-kind": "printf 'QEVM\\0\\0\\0\\3\\7\\0\\0\\0\\4none\\11'",
    "of-unknown-part": "printf 'QEVM\\0\\0\\0\\3\\7\\0\\0\\0\\4none\\1\\0\\0\\0\\1\\3cpu\\0\\0\\0\\0\\0\\0\\0\\1'",
    "with-unknown-command": "printf 'QEVM\\0\\0\\0\\3\\7\\0\\0\\0\\4none\\10\\0\\77\\0\\0'",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_machine_ends_the_program(
    tmp_path: Path, program: Callable[[str], str], name: str
) -> None:
    program("qemu-system-x86_64")
    told = []
    for kind in (Real, Ours):
        with kind(tmp_path / kind.kind, "-incoming", "defer") as daemon:
            daemon.execute("migrate-incoming", uri=f"exec:{BROKEN[name]}")
            assert daemon.ended() == 1
            told.append(daemon.errors().replace(daemon.kind, "program"))
    assert told[0] == told[1]


def test_settings_are_answered_alike(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        daemon("query-migrate")
        daemon("query-migrate-capabilities")
        daemon("query-migrate-parameters")
        for wanted in CAPABILITIES:
            capabilities = [{"capability": name, "state": True} for name in wanted]
            daemon.execute("migrate-set-capabilities", capabilities=capabilities)
        daemon("query-migrate-capabilities")
        for parameters in PARAMETERS:
            daemon.execute("migrate-set-parameters", parameters)
        daemon("query-migrate-parameters")
        for line in LINES:
            daemon.execute("human-monitor-command", {"command-line": line})

    both(script, oracle=Real, ours=Ours)


CAPABILITIES = (
    ["postcopy-preempt"],
    ["zero-copy-send"],
    ["multifd", "compress"],
    ["events", "dirty-bitmaps"],
    ["nonsense"],
    ["late-block-activate", "return-path"],
    ["x-ignore-shared", "postcopy-ram"],
)
ALIAS = {"node-name": "n", "alias": "m", "bitmaps": []}
PARAMETERS = (
    {"compress-level": 10},
    {"compress-threads": 0},
    {"compress-threads": 256},
    {"throttle-trigger-threshold": 101},
    {"cpu-throttle-initial": 0},
    {"max-cpu-throttle": 10},
    {"downtime-limit": 2000001},
    {"multifd-channels": 0},
    {"multifd-zlib-level": 5},
    {"xbzrle-cache-size": 4097},
    {"announce-initial": 100001},
    {"announce-step": 0},
    {"tls-creds": None},
    {"tls-hostname": "host"},
    {"max-bandwidth": 1 << 30},
    {"block-bitmap-mapping": [ALIAS, ALIAS]},
    {"block-bitmap-mapping": [ALIAS | {"alias": "1"}]},
    {"block-bitmap-mapping": [ALIAS | {"alias": "a" * 256}]},
    {"block-bitmap-mapping": [ALIAS, ALIAS | {"node-name": "o"}]},
    {"block-bitmap-mapping": [ALIAS | {"bitmaps": [{"name": "b", "alias": "c"}]}]},
)
LINES = (
    "info migrate_parameters",
    "info migrate_capabilities",
    "info migrate",
    "migrate_set_capability events maybe",
    "migrate_set_capability nothing on",
    "migrate_set_parameter nothing 1",
    "migrate_set_parameter downtime-limit 100",
    "migrate_set_parameter block-bitmap-mapping x",
    "migrate_continue active",
    "migrate_start_postcopy",
    "migrate_pause",
    "migrate_recover unix:/nowhere",
    "migrate_incoming unix:/nowhere",
    "migrate -d -r unix:/nowhere",
    "migrate_cancel",
)


RDMA = ("rdma:", "rdma:host", "rdma::1", "rdma:host:1")


def test_where_a_machine_cannot_go_is_told_alike(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        set_capabilities(daemon, "events")
        for uri in ("nonsense", "nonsense:x", "unix:", "tcp:host", "tcp:[::1", "tcp::", "fd:x"):
            daemon.execute("migrate", uri=uri)
            daemon("query-migrate")
        for place in RDMA:
            daemon.execute("migrate", uri=place)
            daemon("query-migrate")
        daemon("migrate_cancel")
        daemon.execute("migrate-continue", state="active")
        daemon.execute("migrate", uri="unix:/x", resume=True)
        daemon.execute("migrate-incoming", uri="unix:/x")
        daemon.execute("migrate-start-postcopy")

    both(script, oracle=Real, ours=Ours)


def test_a_machine_that_waits_is_answered_alike(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        daemon("query-status")
        daemon("query-migrate")
        daemon("stop")
        daemon("query-status")
        daemon.execute("migrate", uri="unix:/x")
        for place in ("nonsense", *RDMA):
            daemon.execute("migrate-incoming", uri=place)
        daemon.execute("migrate-incoming", uri="unix:stream")
        daemon.execute("migrate-incoming", uri="unix:stream")
        daemon("query-migrate")

    both(script, "-incoming", "defer", oracle=Real, ours=Ours)


@KINDS
def test_a_machine_goes_on_from_a_snapshot(
    tmp_path: Path, program: Callable[[str], str], sender: Kind, receiver: Kind
) -> None:
    program("qemu-system-x86_64")
    disk = tmp_path / "disk.qcow2"
    image("create", "-f", "qcow2", str(disk), "8M", cwd=tmp_path)
    drive = ("-drive", f"if=none,id=d,format=qcow2,file={disk}")
    with sender(tmp_path / "one", *drive) as daemon:
        assert daemon("human-monitor-command", {"command-line": "savevm tag"}) == ""
        assert daemon.stop() == 0
    with receiver(tmp_path / "other", *drive, "-loadvm", "tag") as daemon:
        assert daemon("query-status")["status"] == "running"
        assert daemon("human-monitor-command", {"command-line": "loadvm tag"}) == ""
        assert daemon("human-monitor-command", {"command-line": "delvm tag"}) == ""
        listed = daemon("human-monitor-command", {"command-line": "info snapshots"})
        assert listed == "There is no snapshot available.\r\n"
        assert daemon.stop() == 0


HELD = 20000  # bytes a second after the machine has left: a few chunks at a time
LARGE = f'{{"driver": "null-co", "node-name": "n", "size": {1 << 40}, "read-zeroes": true}}'


@contextmanager
def held_back(folder: Path, kind: Kind) -> Iterator[tuple[Daemon, Daemon]]:
    """Give a machine whose bits will be sent slowly, and one that waits at ``stream`` for it."""
    waits = ("-incoming", f"unix:{folder}/stream")
    with (
        kind(folder / "there", "-blockdev", LARGE, *waits) as there,
        kind(folder / "here", "-blockdev", LARGE) as here,
    ):
        for daemon in (here, there):
            set_capabilities(daemon, *ON)
        here("block-dirty-bitmap-add", node="n", name="a", granularity=65536)
        here("migrate-set-parameters", max_postcopy_bandwidth=HELD)
        yield here, there


@pytest.mark.parametrize("kind", [Real, Ours], ids=["real", "ours"])
def test_bits_are_held_back_and_the_way_is_lost(
    tmp_path: Path, program: Callable[[str], str], kind: Kind
) -> None:
    program("qemu-system-x86_64")
    with held_back(tmp_path, kind) as (here, there):
        _refused(there, "migrate-recover", RECOVER, uri="unix:x")
        _refused(here, "migrate-pause", PAUSE)
        _refused(here, "migrate", RESUME, uri="unix:x", resume=True)
        here("migrate", uri=f"unix:{tmp_path}/stream")
        here("migrate-start-postcopy")
        for daemon in (here, there):
            daemon.wait("MIGRATION", lambda data: data["status"] == "postcopy-active")
        there.wait("RESUME")
        here("migrate-pause")
        here.wait("MIGRATION", lambda data: data["status"] == "postcopy-paused")
        there.wait("MIGRATION", lambda data: data["status"] == "completed")
        _refused(there, "migrate-recover", RECOVER, uri="unix:x")
        _refused(here, "migrate-pause", PAUSE)
        _refused(here, "migrate", "There's a migration process in progress", uri="unix:x")
        for uri, text in BAD_PLACES.items():
            _refused(here, "migrate", text, uri=uri, resume=True)
        here("migrate", uri=f"unix:{tmp_path}/none", resume=True)
        eventually(here, lambda: "Failed to connect" in here.errors())  # else it dies of the next
        assert here("query-migrate")["status"] == "postcopy-paused"
        asked = tmp_path / "asked"
        here("migrate", uri=f"exec:head -c 5 >{asked}", resume=True)
        here.wait("MIGRATION", lambda data: data["status"] == "postcopy-recover")
        _refused(here, "migrate", RESUME, uri="unix:x", resume=True)
        _refused(here, "cont", "Migration is not finalized yet")
        assert here("query-status")["status"] == "finish-migrate"
        assert there("query-status")["status"] == "running"
        eventually(here, lambda: asked.exists() and len(asked.read_bytes()) == 5)
        assert asked.read_bytes() == b"\x08\x00\x09\x00\x00"  # whether the other side is ready
        assert there.stop() == 0
        if kind is Ours:  # QEMU waits for an answer for ever
            here("migrate_cancel")
            here.wait("MIGRATION", lambda data: data["status"] == "cancelled")
            assert here.stop() == 0


def eventually(daemon: Daemon, condition: Callable[[], bool]) -> None:
    """Ask something of a machine until a condition holds."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        daemon("query-migrate")


RECOVER = "Migrate recover can only be run when postcopy is paused."
PAUSE = "migrate-pause is currently only supported during postcopy-active state"
RESUME = "Cannot resume if there is no paused migration"
BAD_PLACES = {
    "nonsense": "Parameter 'uri' expects a valid migration protocol",
    "tcp:x": "error parsing address 'x'",
    "fd:x": "File descriptor named 'x' has not been found",
}


def _refused(daemon: Daemon, command: str, text: str, **members: object) -> None:
    assert daemon.execute(command, **members)["error"]["desc"] == text


@pytest.mark.parametrize("kind", [Real, Ours], ids=["real", "ours"])
def test_it_can_be_cancelled_when_the_machine_has_left(
    tmp_path: Path, program: Callable[[str], str], kind: Kind
) -> None:
    """The machine runs there, and here it can be let run again by hand."""
    program("qemu-system-x86_64")
    with held_back(tmp_path, kind) as (here, there):
        here("migrate", uri=f"unix:{tmp_path}/stream")
        here("migrate-start-postcopy")
        here.wait("MIGRATION", lambda data: data["status"] == "postcopy-active")
        there.wait("RESUME")
        here("migrate_cancel")
        here.wait("MIGRATION", lambda data: data["status"] == "cancelled")
        there.wait("MIGRATION", lambda data: data["status"] == "completed")
        assert here("query-migrate") == {"status": "cancelled"}
        assert here("query-status")["status"] == "postmigrate"
        here("cont")
        assert here("query-status")["status"] == "running"
        assert here.stop() == there.stop() == 0


@pytest.mark.parametrize("kind", [Real, Ours], ids=["real", "ours"])
def test_it_can_be_cancelled_before_the_switchover_and_before_it_begins(
    tmp_path: Path, program: Callable[[str], str], kind: Kind
) -> None:
    program("qemu-system-x86_64")
    waits = ("-incoming", f"unix:{tmp_path}/stream")
    with (
        kind(tmp_path / "there", *OPTIONS, *waits) as there,
        kind(tmp_path / "here", *OPTIONS) as here,
    ):
        here("migrate_cancel")
        assert here("query-migrate") == {}
        set_capabilities(here, "events", "pause-before-switchover")
        here("migrate", uri=f"unix:{tmp_path}/stream")
        here.wait("MIGRATION", lambda data: data["status"] == "pre-switchover")
        assert here("query-status")["status"] == "finish-migrate"
        here("migrate_cancel")
        here.wait("MIGRATION", lambda data: data["status"] == "cancelled")
        assert here("query-status")["status"] == "running"
        here("migrate_cancel")
        assert here("query-migrate") == {"status": "cancelled"}
        ends = ["MIGRATIONcancelling", "RESUME", "MIGRATIONcancelled"]
        told = heard(here)[2:]
        if kind is Real and "MIGRATIONdevice" in told:  # before its thread saw the end
            told.remove("MIGRATIONdevice")
        assert told == ["STOP", "MIGRATIONpre-switchover", *ends]
        assert there.ended() == 1
        assert here.stop() == 0
