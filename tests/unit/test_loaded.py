"""What of our own a run imports: parts that it does not use are not there (docs/architecture.md)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import blockemu
from blockemu.commands import load
from blockemu.commands.families import FAMILIES
from blockemu.daemon import Daemon
from blockemu.qmp_server import control

RUN = """
import atexit, json, sys
from importlib import import_module

def tell():
    print(json.dumps([name for name in sys.modules if name != "__main__"]), file=sys.stderr)

program, *argv = sys.argv[1:]
main = import_module(f"blockemu.{program}").main
sys.argv = ["tool", *argv]
atexit.register(tell)
sys.exit(main())
"""
# Who opens images and nothing else does without these, and without whatever is in them.
NOT_IN_TOOLS = frozenset(
    [
        "activation",
        "chardevs",
        "commands",
        "crashes",
        "daemon",
        "dirty",
        "encryption",
        "exports",
        "jobs",
        "machine",
        "migration",
        "nbd",
        "objects",
        "runstate",
        "snapshots",
        "throttling",
        "tls",
        "host.streams",
        "programs.startup",
    ]
)
# Of a command that has nothing to do with images, these are all.
BARE = frozenset(["arguments", "cache_modes", "errors", "lean", "programs.process"])
ALL_PARTS = frozenset(
    [
        "amend",
        "bitmaps",
        "checking",
        "compressor",
        "create",
        "emptying",
        "measure",
        "placer",
        "planner",
        "reader",
        "resize",
        "snapshots",
        "status",
        "writeback",
        "writer",
        "zeroer",
    ]
)
# Per run: the program and its arguments, and which parts of qcow2 it uses.
RUNS: dict[str, tuple[str, list[str], str]] = {
    "info": ("programs.img_cli", ["info", "image"], ""),
    "map": ("programs.img_cli", ["map", "image"], "reader status"),
    "check": ("programs.img_cli", ["check", "image"], "checking writeback"),
    "create": (
        "programs.img_cli",
        ["create", "-f", "qcow2", "new", "1M"],
        "create reader resize writeback writer zeroer",
    ),
    "read": ("programs.io_cli", ["-c", "read 0 64k", "image"], "planner reader writeback"),
    "write": ("programs.io_cli", ["-c", "write 0 64k", "image"], "reader writeback writer"),
}


SOURCES = Path(blockemu.__file__).parent


def loaded(folder: Path, program: str, *argv: str, stdin: bytes = b"") -> set[str]:
    """Run a program; return the names of what it imported, ours without ``blockemu.``."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, program, *argv],
        cwd=folder,
        input=stdin,
        capture_output=True,
        check=True,
    )
    names = json.loads(done.stderr.splitlines()[-1])
    return {name.removeprefix("blockemu.") for name in names}


def our_modules(names: set[str]) -> set[str]:
    """Return those of our modules, packages aside, that are in a set of names."""
    return {
        name for name in names if (SOURCES / name.replace(".", "/")).with_suffix(".py").exists()
    }


def of_package(names: set[str], package: str) -> set[str]:
    """Return what is directly in a package, of the names of modules."""
    found = (name.removeprefix(package + ".") for name in names if name.startswith(package + "."))
    return {name.partition(".")[0] for name in found}


@pytest.mark.parametrize("name", RUNS)
def test_a_tool_imports_the_parts_of_a_driver_that_it_uses(name: str, tmp_path: Path) -> None:
    program, argv, parts = RUNS[name]
    loaded(tmp_path, "programs.img_cli", "create", "-f", "qcow2", "image", "1M")
    names = loaded(tmp_path, program, *argv)
    seldom = NOT_IN_TOOLS & names
    assert seldom == ({"snapshots"} if name == "info" else set())
    assert of_package(names, "drivers") == {"file", "qcow2"}
    assert of_package(names, "drivers.qcow2") & ALL_PARTS == set(parts.split())


@pytest.mark.parametrize(
    ("program", "argv"), [("programs.io_cli", ["-c", "quit"]), ("programs.io_cli", ["-c", "q"])]
)
def test_who_opens_nothing_imports_next_to_nothing(
    program: str, argv: list[str], tmp_path: Path
) -> None:
    names = loaded(tmp_path, program, *argv)
    assert our_modules(names) - BARE == {program}
    assert "asyncio" not in names


QMP = b'{"execute": "qmp_capabilities"}\n%s{"execute": "quit"}\n'
ADD = b'{"execute": "blockdev-add", "arguments": {"driver": "null-co", "node-name": "n"}}\n'
SCHEMA = b'{"execute": "query-qmp-schema"}\n'
OF_COMMANDS = {"copy_before_write", "copy_on_read", "file"}  # commands make nodes of them


def test_a_monitor_imports_the_drivers_that_clients_name(tmp_path: Path) -> None:
    def drivers(commands: bytes) -> set[str]:
        names = loaded(tmp_path, "__main__", "--qmp", "stdio", stdin=QMP % commands)
        assert ("numpy._core" in names) is (commands == SCHEMA)  # arrays come with images
        return of_package(names, "drivers")

    assert drivers(b"") <= OF_COMMANDS
    assert drivers(ADD) - OF_COMMANDS == {"null"}
    assert {"blkdebug", "nbd", "qcow2", "quorum", "unbuilt"} <= drivers(SCHEMA)


async def test_who_waits_for_commands_hears_of_each_family_that_comes() -> None:
    daemon, heard = Daemon(), []
    daemon.loaded = lambda: heard.append("loaded")
    assert daemon.registry.get("no-such-command") is None
    assert not heard
    assert daemon.registry.get("xen-save-devices-state") is not None
    assert heard == ["loaded"]
    assert daemon.registry.get("xen-save-devices-state") is not None
    assert heard == ["loaded"]
    await daemon.close()


def test_the_table_of_families_says_what_they_have() -> None:
    said = {name: family for family, names in FAMILIES.items() for name in names.split()}
    assert len(said) == sum(len(names.split()) for names in FAMILIES.values())
    commands = [each for each in load() if each.function.__module__ != control.__name__]
    assert said == {
        each.name: each.function.__module__.removeprefix("blockemu.commands.") for each in commands
    }


EACH_FIRST = """
import os, sys
from importlib import import_module
from blockemu.programs import cli
from blockemu.daemon import Daemon
for family in sys.argv[1:]:
    child = os.fork()
    if not child:
        import_module(f"blockemu.commands.{family}")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, family
"""


def test_each_family_can_be_the_first() -> None:
    done = subprocess.run([sys.executable, "-c", EACH_FIRST, *FAMILIES], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_command_imports_its_family_alone(tmp_path: Path) -> None:
    def families(commands: bytes) -> set[str]:
        names = loaded(tmp_path, "__main__", "--qmp", "stdio", stdin=QMP % commands)
        return of_package(names, "commands") & FAMILIES.keys()

    of_quit = families(b"")
    assert of_quit < FAMILIES.keys()
    assert families(b'{"execute": "no-such-command"}\n') == of_quit
    assert families(b'{"execute": "query-jobs"}\n') == of_quit | {"jobs"}
    assert families(SCHEMA) == FAMILIES.keys()
