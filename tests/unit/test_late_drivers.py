"""Drivers that are imported when they are needed: what is known of them before is true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blockemu.drivers import LATE, UNBUILT, drivers_of, import_all, load_drivers, module_names
from blockemu.images.qcow2 import constants
from blockemu.node import Node
from blockemu.probing import Catalog, Late, of_protocol, probe, probe_device

PROBES = ("probe", "probe_device")


def test_the_table_lists_all_drivers_of_the_modules_in_it() -> None:
    import_all()
    listed = {entry.module for entry in LATE.values()}
    assert listed <= set(module_names()) - {UNBUILT}
    modules = {name: sys.modules[f"blockemu.drivers.{name}"] for name in listed}
    declared = {tag: name for name, module in modules.items() for tag, _ in drivers_of(module)}
    assert declared == {tag: entry.module for tag, entry in LATE.items()}


SETTLED = """
import gc
from blockemu.programs.process import OBJECTS, prepare, settle
prepare(tool=True)
assert gc.get_threshold()[0] > OBJECTS and not gc.get_freeze_count()
settle()
assert gc.get_threshold()[0] == OBJECTS and gc.get_freeze_count()
"""


def test_a_tool_collects_garbage_as_other_programs_once_it_is_at_work() -> None:
    subprocess.run([sys.executable, "-c", SETTLED], check=True)


@pytest.mark.parametrize("tag", LATE)
def test_the_table_says_what_the_driver_says(tag: str) -> None:
    driver = load_drivers()[tag]
    assert LATE[tag].protocols == tuple(driver.protocols)
    assert set(LATE[tag].probes) == {name for name in PROBES if hasattr(driver, name)}


HEADS = {
    "qcow2": constants.MAGIC.to_bytes(4, "big") + (3).to_bytes(4, "big"),
    "luks": b"LUKS\xba\xbe\0\1",
    "vdi": bytes(64) + (0xBEDA107F).to_bytes(4, "little"),
    "bochs": b"Bochs Virtual HD Image".ljust(32, b"\0")
    + b"Redolog".ljust(16, b"\0")
    + b"Growing".ljust(16, b"\0")
    + (0x20000).to_bytes(4, "little"),
}


@pytest.mark.parametrize("tag", [tag for tag, entry in LATE.items() if entry.magic])
def test_an_image_is_found_by_the_magic_in_the_table(tag: str) -> None:
    head = HEADS[tag].ljust(512, b"\0")
    assert load_drivers()[tag].probe(head, "x") == 100
    assert probe(head, "x", load_drivers()) == tag
    assert load_drivers()[tag].probe(bytes(512), "x") == 0


LOOK = """
import json, sys
from blockemu.drivers import load_drivers
from blockemu.probing import probe
drivers = load_drivers()
sorted(drivers), "vdi" in drivers, "ftp" in drivers
def there():
    names = (name.split(".") for name in sys.modules if name.startswith("blockemu.drivers."))
    return sorted({name[2] for name in names})
before = there()
probe(b"QFI\\xfb\\0\\0\\0\\3".ljust(512, b"\\0"), "x", drivers), drivers["file"]
print(json.dumps([before, there()]))
"""


def test_only_what_is_needed_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout)
    assert before == []
    assert after == ["file", "qcow2"]


OPTIONS = """
from blockemu.drivers import load_drivers
from blockemu.blockdev_options import BlockdevOptions
from blockemu.qmp_server.qapi import visit
print(visit(BlockdevOptions, {"driver": "null-co", "size": 1}).size)
print(visit(BlockdevOptions, {"driver": "nvme", "device": "d", "namespace": 1}).namespace)
visit(BlockdevOptions, {"driver": "nosuch"})
"""


def test_options_are_there_for_drivers_that_were_not_imported() -> None:
    done = subprocess.run([sys.executable, "-c", OPTIONS], capture_output=True, text=True)
    assert done.stdout == "1\n1\n"
    assert "does not accept value 'nosuch'" in done.stderr.splitlines()[-1]


def test_a_module_beside_them_needs_no_place_in_the_table(tmp_path: Path) -> None:
    (tmp_path / "ones.py").write_text(
        "from blockemu.blockdev_options import NodeOptions\n"
        "from blockemu.node import Node\n"
        "class OnesOptions(NodeOptions, tag='ones'):\n    'Options.'\n"
        "class Ones(Node[OnesOptions]):\n    'A device.'\n    Options = OnesOptions\n"
    )
    code = (
        "import sys; from blockemu import drivers; drivers.__path__.append(sys.argv[1]);"
        "print(drivers.load_drivers()['ones'].__name__, 'ones' in drivers.import_all())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, os.fspath(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "Ones True\n"


class Tape(Node):
    protocols = ("tape",)

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        return 7

    @classmethod
    def probe_device(cls, filename: str) -> int:
        return 5 if filename == "/dev/tape" else 0


def _never(tag: str) -> type[Node]:
    raise AssertionError(f"{tag} was imported")


def test_drivers_that_are_there_are_asked_for_everything() -> None:
    late = {"other": Late("other", protocols=("o",), magic=(2, b"OO"), probes=("probe",))}
    drivers = Catalog(late, _never, {"tape": Tape})
    assert (list(drivers), len(drivers)) == (["other", "tape"], 2)
    assert probe(b"OO  ", "x", drivers) == "tape"
    assert probe_device("/dev/tape", drivers) == "tape"
    assert probe_device("/dev/other", drivers) is None
    assert of_protocol("tape", drivers) == "tape"
    assert of_protocol("x", drivers) is None
    with pytest.raises(AssertionError, match="other was imported"):
        probe(b"  OO", "x", drivers)
    with pytest.raises(KeyError):
        drivers["nosuch"]


def test_what_is_there_takes_the_place_of_what_would_come() -> None:
    assert Catalog({"tape": Late("tape")}, _never, {"tape": Tape})["tape"] is Tape


class Known(Node):
    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        return 100


def test_who_is_sure_of_an_image_ends_the_search() -> None:
    def load(tag: str) -> type[Node]:
        return Known if tag == "known" else _never(tag)

    late = {tag: Late(tag, probes=("probe",)) for tag in ("known", "never")}
    assert probe(b"", "x", Catalog(late, load, {"tape": Tape})) == "known"


def test_late_drivers_are_asked_about_special_files_only(tmp_path: Path) -> None:
    drivers = Catalog({"device": Late("device", probes=("probe_device",))}, _never, {"tape": Tape})
    assert probe_device(__file__, drivers) is None
    assert probe_device("/nowhere/at-all", drivers) is None
    os.mkfifo(tmp_path / "fifo")
    for special in "/dev/null", "/dev/tape", os.fspath(tmp_path / "fifo"):
        with pytest.raises(AssertionError, match="device was imported"):
            probe_device(special, drivers)
