"""The machine's parts: its command line, its clock's protocol, its drives' names."""

import io
import re

import pytest

from blockemu.arguments import UsageError
from blockemu.clocks import SteppedClock
from blockemu.emulator import Emulator
from blockemu.errors import QmpError
from blockemu.machine.argv import scan
from blockemu.machine.characters import NoCharDriver, parse_character
from blockemu.machine.models import UnsupportedMachine, model
from blockemu.machine.qtest import Qtest


def test_one_dash_and_two_mean_the_same():
    found = list(scan(["-drive", "x", "--drive", "y", "-S", "disk"]))
    assert [(o.name, o.value, o.where) for o in found] == [
        ("drive", "x", "-drive x"),
        ("drive", "y", "--drive y"),
        ("S", "", "-S"),
        ("", "disk", "disk"),
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [(["-bogus"], "-bogus: invalid option"), (["-drive"], "-drive: requires an argument")],
)
def test_a_wrong_option_is_named(words, text):
    with pytest.raises(UsageError) as caught:
        list(scan(words))
    assert str(caught.value) == text


def test_machines_go_by_family_and_version():
    assert model("pc")._replace(name="pc-i440fx-6.2") == model("pc-i440fx-6.2")
    assert model("none").fixtures == ()
    with pytest.raises(UnsupportedMachine):
        model("toaster")


def test_a_chardev_by_its_older_name():
    types = {"path": "string", "server": "bool"}
    assert parse_character("unix:path=x,server=on", print, types) == (
        "socket",
        {"path": "x", "server": "on"},
    )
    with pytest.raises(NoCharDriver):
        parse_character("toaster", print, types)


def test_the_clock_moves_when_told_and_to_the_next_timer_unless_told_how_far():
    clock, rung = SteppedClock(), []
    qtest = Qtest(clock)
    clock.timer(70, lambda: rung.append(clock.now()))
    assert qtest.receive(b"clock_step 5\nclock_") == b"OK 5\n"
    assert qtest.receive(b"step\nclock_set 0x100\nendianness\nclock_step x\n") == (
        b"OK 70\nOK 256\nOK little\nFAIL\n"
    )
    assert rung == [70]


def test_what_a_test_says_is_logged_as_qemu_does() -> None:
    log = io.StringIO()
    qtest = Qtest(SteppedClock(), log)
    assert qtest.receive(b"clock_step 5\n") == b"OK 5\n"
    qtest.closed()
    qtest.closed()
    assert re.sub(r"\d\.\d{6}", "T", log.getvalue()).splitlines() == [
        "[I T] OPENED",
        "[R +T] clock_step 5",
        "[S +T] OK 5",
        "[I +T] CLOSED",
    ]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("if=none", "none0"),
        ("if=ide", "ide0-hd0"),
        ("if=ide,index=3,media=cdrom", "ide1-cd1"),
        ("if=scsi,unit=2", "scsi0-hd2"),
        ("if=virtio,index=4", "virtio4"),
        ("if=none,id=mine", "mine"),
    ],
)
async def test_a_drive_without_id_is_named_after_its_place(options, name):
    emu = Emulator()
    backend = await emu.drives.add_text(options, "ide")
    assert backend.title == name
    await emu.close()


async def test_a_device_that_fails_leaves_nothing_behind():
    emu = Emulator()
    with pytest.raises(QmpError, match="No 'PCI' bus found for device 'virtio-blk-pci'"):
        await emu.devices.add({"driver": "virtio-blk"})
    assert not list(emu.qom.container("machine").children)
    await emu.close()
