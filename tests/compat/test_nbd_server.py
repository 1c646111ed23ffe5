"""The NBD server, seen by libnbd's and QEMU's own clients: the same from ours as from the real one."""

import json
import subprocess
from pathlib import Path

import pytest
from compat.daemon import DEADLINE, Both, Daemon, image

MIB = 1 << 20


def chain(folder: Path) -> None:
    image("create", "-f", "qcow2", "base.qcow2", "8M", cwd=folder)
    fill(folder, "base.qcow2", "write -q -P 1 0 1M", "write -q -P 1 4M 64k")
    image("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2", cwd=folder)
    fill(folder, "top.qcow2", "write -q -P 2 512k 64k", "write -q -z 2M 1M")


def fill(folder: Path, name: str, *commands: str) -> None:
    run = [part for command in commands for part in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *run, name], cwd=folder, check=True, timeout=30)


def client(daemon: Daemon, *arguments: str, name: str = "x") -> tuple[int, str]:
    """Run a client of the export; return its exit status and what it said, without the path."""
    uri = f"nbd+unix:///{name}?socket={daemon.folder}/nbd.sock"
    done = subprocess.run(
        [*arguments, uri],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        cwd=daemon.folder,
    )
    said = (done.stdout + done.stderr).replace(str(daemon.folder), "DIR")
    return done.returncode, said


def serve(daemon: Daemon, **options: object) -> None:
    path = str(daemon.folder / "nbd.sock")
    daemon("nbd-server-start", {"addr": {"type": "unix", "data": {"path": path}}})
    file = {"driver": "file", "filename": str(daemon.folder / "top.qcow2")}
    daemon("blockdev-add", {"driver": "qcow2", "node-name": "disk", "file": file})
    more = {key.replace("_", "-"): value for key, value in options.items()}
    daemon("block-export-add", {"type": "nbd", "id": "e", "node-name": "disk", "name": "x"} | more)


def ours_and_theirs(both: Both, ask, **options: object) -> None:
    """Have ``ask`` of a daemon what it gets from its clients, and compare."""
    heard: dict[str, object] = {}

    def script(daemon: Daemon) -> None:
        serve(daemon, **options)
        heard[daemon.kind] = ask(daemon)
        daemon("query-block-exports")
        daemon("block-export-del", id="e", mode="hard")
        daemon.wait("BLOCK_EXPORT_DELETED")
        daemon("nbd-server-stop")

    both(script, prepare=chain)
    real, ours = heard.values()
    assert ours == real


@pytest.mark.parametrize("writable", [False, True])
def test_what_an_export_says_of_itself(both: Both, writable: bool) -> None:
    def ask(daemon: Daemon) -> list[object]:
        _, info = client(daemon, "nbdinfo", "--json")
        status, absent = client(daemon, "nbdinfo", name="absent")
        return [json.loads(info.replace("DIR", "")), status, absent]

    ours_and_theirs(both, ask, writable=writable, description="A disk", allocation_depth=True)


@pytest.mark.parametrize("context", ["base:allocation", "qemu:allocation-depth"])
def test_the_map_of_a_disk(both: Both, context: str) -> None:
    def ask(daemon: Daemon) -> object:
        return client(daemon, "nbdinfo", "--json", f"--map={context}")

    ours_and_theirs(both, ask, allocation_depth=True)


def test_a_dirty_bitmap_is_read_by_clients(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        serve(daemon, writable=True)
        daemon("block-dirty-bitmap-add", node="disk", name="b", granularity=65536)
        client(daemon, "qemu-io", "-f", "raw", "-c", "write 0 64k", "-c", "write 3M 1000")
        daemon("block-dirty-bitmap-disable", node="disk", name="b")
        daemon(
            "block-export-add",
            {"type": "nbd", "id": "f", "node-name": "disk", "name": "y", "bitmaps": ["b"]},
        )
        daemon("query-named-block-nodes", flat=True)
        heard.append(client(daemon, "nbdinfo", "--json", "--map=qemu:dirty-bitmap:b", name="y"))
        daemon.execute("block-dirty-bitmap-remove", node="disk", name="b")
        daemon("block-export-del", id="f")
        daemon.wait("BLOCK_EXPORT_DELETED")
        daemon("block-dirty-bitmap-remove", node="disk", name="b")

    heard: list[object] = []
    both(script, prepare=chain)
    assert heard[0] == heard[1]


COMMANDS = [
    "read -P 1 0 512k",
    "read -P 2 512k 64k",
    "read 511 513",
    "write -P 7 5M 1M",
    "write -P 8 5242881 1000",
    "write -f -P 8 100 1",
    "read -P 7 5243881 1000",
    "write -z 6M 1M",
    "write -z -u 5M 64k",
    "discard 4M 64k",
    "read 8M 512",
    "write 8388607 2",
    "flush",
]


def test_requests_of_all_kinds(both: Both) -> None:
    def ask(daemon: Daemon) -> object:
        run = [part for command in COMMANDS for part in ("-c", command)]
        status, said = client(daemon, "qemu-io", "-f", "raw", *run)
        return status, [line for line in said.splitlines() if " ops; " not in line]

    ours_and_theirs(both, ask, writable=True)


def test_copies_both_ways(both: Both) -> None:
    def ask(daemon: Daemon) -> object:
        (daemon.folder / "in.raw").write_bytes(bytes(range(256)) * (8 * MIB // 256))
        status, said = client(daemon, "nbdcopy", "in.raw")
        uri = f"nbd+unix:///x?socket={daemon.folder}/nbd.sock"
        subprocess.run(["nbdcopy", uri, "out.raw"], cwd=daemon.folder, check=True, timeout=DEADLINE)
        same = (daemon.folder / "in.raw").read_bytes() == (daemon.folder / "out.raw").read_bytes()
        return status, said, same

    ours_and_theirs(both, ask, writable=True)


def test_a_node_stays_in_the_thread_that_an_export_is_fixed_to(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        serve(daemon)
        for name in ("one", "two"):
            daemon("object-add", {"qom-type": "iothread", "id": name})
        export = {"type": "nbd", "node-name": "disk"}
        for number, more in enumerate(
            [
                {"iothread": "nosuch"},
                {"iothread": "one", "fixed-iothread": True},
                {"iothread": "two", "fixed-iothread": True},
                {"iothread": "one", "fixed-iothread": True},
                {"iothread": "two", "fixed-iothread": False},
                {"iothread": "two"},
                {"fixed-iothread": True},
            ]
        ):
            names = {"id": f"e{number}", "name": f"n{number}"}
            daemon.execute("block-export-add", export | names | more)
        daemon("query-block-exports")

    both(script, prepare=chain)
