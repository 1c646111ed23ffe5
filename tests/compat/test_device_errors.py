"""rerror and werror: a guest's boot sector writes and reads where errors are injected.

The real program runs SeaBIOS and a boot sector of ours, which asks the BIOS for one request after
the other.  Ours has no CPU: the same requests come by x-emu-guest-io.
"""

from __future__ import annotations

import struct
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from compat.daemon import DEADLINE, BlockemuMachine, Both, Daemon, Machine

READ, WRITE = 0x42, 0x43  # functions of INT 13h that take a packet
REQUESTS = ((WRITE, 128), (READ, 256))  # and the sector
DEVICES = {
    "virtio-blk": ("virtio-blk,drive=d,id=dev",),
    "ide-hd": ("ide-hd,drive=d,id=dev",),
    "scsi-hd": ("virtio-scsi,id=bus", "scsi-hd,drive=d,id=dev"),
}


def boot_sector(requests: tuple[tuple[int, int], ...]) -> bytes:
    """Return code that makes requests of one sector; it writes o, e or, at the end, . to port E9h."""
    table = 0x60
    code = bytearray.fromhex("fa 31c0 8ed8 8ec0 8ed0 bc007c fb")  # segments and stack
    code += b"\xbe" + struct.pack("<H", 0x7C00 + table)  # mov si, table
    loop = len(code)
    code += bytes.fromhex("8a24 84e4 7418")  # mov ah, [si]; test ah, ah; jz end
    code += bytes.fromhex("30c0 b280 46 cd13")  # xor al, al; mov dl, 80h; inc si; int 13h
    code += b"\xb0o\x73\x02\xb0e\xe6\xe9"  # mov al, 'o'; jnc +2; mov al, 'e'; out E9h, al
    code += bytes.fromhex("83c610 eb") + struct.pack("b", loop - len(code) - 5)  # add si, 16; jmp
    code += b"\x90" * (loop + 30 - len(code)) + b"\xb0.\xe6\xe9\xf4\xeb\xfd"  # '.'; hlt for ever
    code += bytes(table - len(code))
    for function, sector in requests:
        code += struct.pack("<BBBHHHQ", function, 16, 0, 1, 0x8000, 0, sector)
    return bytes(code.ljust(510, b"\0")) + b"\x55\xaa"


class Booted(Machine):
    """The real program, which boots."""

    def program(self) -> list[str]:
        return [*super().program(), "-debugcon", "file:port-e9"]

    def ask(self, number: int) -> None:
        """Let the guest do what it does anyway."""

    def answered(self, number: int) -> None:
        """Let the guest see to that."""

    def results(self) -> str:
        """Wait until the guest is done; return how its requests ended."""
        deadline, self.recording = time.monotonic() + DEADLINE, False
        while not (said := (self.folder / "port-e9").read_text()[-3:]).endswith("."):
            self("query-status")
            assert time.monotonic() < deadline, said
        self.recording = True
        return said.rstrip(".")


class Asked(BlockemuMachine):
    """Ours, of which a test asks what a guest would."""

    def __init__(self, *arguments: Any) -> None:
        self.said = ""
        super().__init__(*arguments)

    def program(self) -> list[str]:
        return [*super().program(), "--compat", "all"]

    def _event(self, value: Any) -> None:
        if value["event"] == "X_EMU_GUEST_IO":
            self.events.append(value)
        else:
            super()._event(value)

    def ask(self, number: int) -> None:
        function, sector = REQUESTS[number]
        self.recording = False
        operation = "write" if function == WRITE else "read"
        place = {"offset": sector * 512, "length": 512}
        self("x-emu-guest-io", device="dev", operation=operation, **place)
        self.recording = True

    def answered(self, number: int) -> None:
        self.said += "e" if "error" in self.wait("X_EMU_GUEST_IO") else "o"

    def results(self) -> str:
        return self.said


def show(daemon: Daemon, *, counts: bool) -> None:
    """Note the run state and what is known of the device, with its requests' ``counts`` or without."""
    daemon("query-status")
    daemon.recording = False
    (block,) = (each for each in daemon("query-block") if each["qdev"].find("dev") >= 0)
    (stats,) = (each["stats"] for each in daemon("query-blockstats") if each["device"] == "d")
    daemon.recording = True
    kinds = ("wr_operations", "wr_bytes", "failed_wr_operations", "failed_rd_operations")
    counted = [stats[kind] for kind in kinds] if counts else ""
    daemon.note(f"{block.get('io-status')} {counted}")


def play(
    both: Both, device: str, error: int, drive: str, properties: str, *, stops: tuple[bool, bool]
) -> str:
    """Have a write and a read fail with an error each; return how the guest says they ended."""

    def prepare(folder: Path) -> None:
        (folder / "disk.img").write_bytes(boot_sector(REQUESTS) + bytes(1 << 20))

    def script(daemon: Any) -> None:
        daemon("cont")
        for number, stop in enumerate(stops):
            daemon.ask(number)
            daemon.wait("BLOCK_IO_ERROR")
            if stop:
                daemon.wait("STOP")
                show(daemon, counts=counts)
                daemon("cont")
            daemon.answered(number)
        said.append(daemon.results())
        show(daemon, counts=counts)

    said: list[str] = []
    # Of a stop, SeaBIOS remembers that IDE took too long: it may give a request up, or send the next
    # one, before QEMU has tried the first again.
    counts = device != "ide-hd" or not any(stops)
    rules = [
        f"inject-error.{i}.event=none,inject-error.{i}.iotype={kind},inject-error.{i}.errno={error},"
        f"inject-error.{i}.sector={sector},inject-error.{i}.once=on"
        for i, (kind, (_, sector)) in enumerate(zip(("write", "read"), REQUESTS, strict=True))
    ]
    disk = "if=none,id=d,driver=blkdebug,node-name=n,image.driver=file,image.filename=disk.img"
    options = ["-drive", ",".join([disk, *rules]) + drive]
    for each in DEVICES[device]:
        options += ["-device", each + (properties if "drive=d" in each else "")]
    # A guest that goes on may meet its next error before QEMU has answered ``cont``.
    both(script, *options, oracle=Booted, ours=Asked, prepare=prepare, racing=True)
    if counts:
        assert said[0] == said[1]
    return said[1]


POLICIES = ["", "report", "ignore", "enospc", "stop", "auto"]


def given(write: str, read: str) -> str:
    return (f",werror={write}" if write else "") + (f",rerror={read}" if read else "")


@pytest.mark.parametrize("error", [5, 28])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("device", DEVICES)
def test_each_policy_of_a_device(both: Both, device: str, policy: str, error: int) -> None:
    full = error == 28
    stops = {"enospc": (full, full), "stop": (True, True), "": (full, False), "auto": (full, False)}
    stop = stops.get(policy, (False, False))
    passed = ["o" if policy == "ignore" or each else "e" for each in stop]
    assert play(both, device, error, "", given(policy, policy), stops=stop) == "".join(passed)


@pytest.mark.parametrize(
    ("write", "read"), [*product(("report", "ignore", "stop"), ("report", "ignore", "stop"))]
)
def test_each_policy_of_a_drive(both: Both, write: str, read: str) -> None:
    stop = (write == "stop", read == "stop")
    play(both, "virtio-blk", 5, given(write, read), "", stops=stop)


def test_a_device_has_its_way_over_the_drive(both: Both) -> None:
    drive, device = given("stop", "report"), given("ignore", "stop")
    assert play(both, "virtio-blk", 5, drive, device, stops=(False, True)) == "oo"


@pytest.mark.parametrize("value", ["foo", "", "Stop", "on"])
@pytest.mark.parametrize("name", ["rerror", "werror", "account-failed"])
def test_bad_policies_are_refused(both: Both, name: str, value: str) -> None:
    def script(daemon: Daemon) -> None:
        daemon("blockdev-add", driver="null-co", node_name="n")
        daemon.execute("device_add", {"driver": "virtio-blk", "drive": "n", name: value})
        daemon("query-block")

    both(script, oracle=Machine, ours=BlockemuMachine)


def test_a_reset_leaves_a_stopped_machine_as_before_its_start(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        daemon("query-status")
        daemon("cont")
        daemon("stop")
        daemon("query-status")
        daemon("system_reset")
        daemon.wait("RESET")
        daemon("query-status")

    both(script, oracle=Machine, ours=BlockemuMachine)
