"""The human monitor's qemu-io: what it answers, prints and leaves in the images."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from compat.daemon import Both, Daemon, System, image

RATES = re.compile(r"[0-9:.]+( sec)? \([0-9.]+ \S+/sec and [0-9.]+ ops/sec\)")
MACHINE = re.compile(r"^(\d+,\d+),[0-9:.]+,[0-9.]+,[0-9.]+$", re.MULTILINE)

LINES = """\
read 0 64k|read -v 510 40|r 0 1 -v|read -- 0 1|read --foo 0 1|read -1 0|read 0 -5|read|read -x 0 1
write -P 65 512 100|read -v 600 20|write -P 300 0 1|write -P 08 0 1|write -P1 0 1|write -P 0x41 0 1
read -P 0x41 512 512|read -P 65 -l 4 -s 510 0 1k|read -l 1 0 1|read -P 1 -l 2 -s 2 0 3|r -P 1 -s 4 0 3
read 0 3G|read 0 99999999999999999999|read 0 1.5|read 0 1.5k|read 0 1.k|read 0 1b|read 0 0x10|read 0 9E
read 0 zz|read 0x1k 1|read 1M 1|read 2M 1|read 100 0|read -C 0 1k|read -q 0 1|read -P 0 0 1|read 8E 1
readv 0 1k 2k|readv 0 1k zz|readv 0 1k 3G|readv 0 2147483136 512|readv 0 0|readv 2M 1|readv 0
write 0 64k|write -q 0 1|write -z 0 128k|write -z -u 64k 64k|write -zuq 1000 30|write -f 0 512
write -z -P 1 0 1|write -zuP1 0 1|write -n 0 1|write -u 0 1|write -b -z 0 1|write -f -c 0 512|write -c 1 512
write 0 3G|write -z -n 0 3G|write -s /nonexistent 0 1|write -s /dev/null 0 1|write -s /dev/zero 7 1k|write 2M 1
writev 0 1k 2k|writev -P 7 100 1 2 3|writev -q 0 1|writev 0|writev 2M 1|writev -x 0 1
aio_read 0 1k|aio_read -P 9 0 1|aio_read -C 0 1k|aio_read -v 0 16|aio_read -i|aio_read -i 0 1|aio_read 0 zz
aio_read 2M 1|aio_write 0 1k|aio_write -P 5 3k 1k 1k|aio_write -z 0 1k 1k|aio_write -u 0 1k|aio_write -q 0 1
aio_write -i 0 1 -z -x|aio_write 2M 1|aio_write -z 2M 1|aio_flush|aio_flush x|aio_write -zuq 0 64k|aio_write 0
discard 0 1k|discard 0 64k|discard -C 0 512|discard -q 0 1|discard 0 3G|discard 0 1 2|discard 2M 1|d 0 0
alloc 0|alloc 0 2M|alloc 3M|alloc 512 1k|alloc zz|a 0 zz|map|map 1|length|l|length 1|flush|f|flush 1
sleep 0|sleep 0x1|sleep x|sleep -1|sigraise zz|sigraise 99|help foo|help sleep|help|?|bogus|open x|quit
break a b|remove_break a|resume a|break x|wait_break x y|truncate|truncate zz|truncate -m off zz
truncate -m foo 1|truncate -x 1|truncate 1M|length|map|alloc 0 1M""".replace("\n", "|").split("|")

NUMBERS = [
    "0",
    "1",
    "512",
    "1k",
    "64K",
    "65536",
    "0x200",
    "0x1g",
    "1.5k",
    "1.",
    "1.25",
    "2M",
    "1048576",
    "1M",
    "999999",
    "8E",
    "7E",
    "99999999999999999999",
    "-1",
    "+3",
    "zz",
    "1kk",
    "1b",
    "0b",
    "00",
    "010",
    "0x",
    "1e3",
    ".5k",
    "0.5k",
    "1.9999999999k",
    "0X10",
    "1T",
    "3G",
    "2147483136",
    "2147483137",
    "65",
    "255",
    "256",
    "0xff",
    "07",
]
OPTIONS = {
    "read": "b C l: p P: q s: x", "readv": "C P: q x", "write": "b c C f n p P: q u z x",
    "writev": "C f q P:", "aio_read": "C P: i q", "aio_write": "C f i q P: u z", "discard": "C q",
    "r": "b P: q", "w": "P: z", "d": "C", "alloc": "", "a": "", "map": "", "length": "", "flush": "",
}  # fmt: skip


def random_line(source: random.Random) -> str:
    """Make up a line that may or may not be right; options may stand between operands."""
    name = source.choice(list(OPTIONS))
    words = [source.choice(NUMBERS) for _ in range(source.choice([0, 1, 2, 2, 2, 2, 2, 2, 3]))]
    for _ in range(source.choice([0, 0, 1, 1, 2, 3]) if OPTIONS[name] else 0):
        option = source.choice(OPTIONS[name].split())
        value = source.choice(["", " "]) + source.choice(NUMBERS) if ":" in option else ""
        at = source.randrange(len(words) + 1) if source.random() < 0.3 else 0
        words.insert(at, f"-{option[0]}{value}")
    return " ".join([name, *words])


REOPEN = [
    "write -q 0 1k", "reopen -r", "write -q 0 1", "reopen -w", "write -q 0 1", "reopen -r -w", "reopen -c foo",
    "reopen x", "reopen -x", "reopen -c unsafe -r", "reopen -o read-only=on -r", "reopen -c writeback",
    "reopen -o cache.no-flush=on -c writeback", "reopen -o foo=on", "reopen -w", "write -q 0 1k",
]  # fmt: skip

HMP = [
    "", "   ", "bogus", "bogus x", "  bogus x", "help foo", "help quit", "quit now", "qemu-io",
    "  qemu-io", "qemu-io d", "qemu-io d read 0 1", 'qemu-io d "read 0 1" x', 'qemu-io d "', "qemu-io -",
    r'qemu-io d "read 0 \"', r'qemu-io d "\q"', 'qemu-io x "length"', 'qemu-io -d x "length"',
    'qemu-io -x d "length"', 'qemu-io n ""', 'qemu-io n "   "', "qemu-io n length", "help qemu-io",
]  # fmt: skip


def prepare(folder: Path) -> None:
    image("create", "-q", "-f", "qcow2", "-o", "cluster_size=64k", "q.qcow2", "1M", cwd=folder)
    (folder / "raw.img").write_bytes(bytes(range(256)) * 4096)


def add_nodes(daemon: Daemon) -> None:
    for name, options in {
        "q": {"driver": "qcow2", "file": {"driver": "file", "filename": "q.qcow2"}},
        "raw": {"driver": "raw", "file": {"driver": "file", "filename": "raw.img"}},
        "n": {"driver": "null-co", "size": 1048576, "read-zeroes": True},
        "ro": {"driver": "null-co", "size": 1048576, "read-zeroes": True, "read-only": True},
    }.items():
        daemon("blockdev-add", {"node-name": name, "discard": "unmap"} | options)


def human(daemon: Daemon, line: str) -> None:
    daemon.execute("human-monitor-command", {"command-line": line})


def printed(daemon: Daemon) -> list[str]:
    """Return what went to standard output and standard error, without times."""
    text = daemon.printed() + (daemon.folder / "stderr.log").read_text()
    return MACHINE.sub(r"\1", RATES.sub("RATES", text)).splitlines()


def run_all(both: Both, node: str, lines: list[str] = LINES) -> None:
    def script(daemon: Daemon) -> None:
        add_nodes(daemon)
        for line in lines:
            human(daemon, f'qemu-io {node} "{line}"')
        if node != "q":  # how long a qcow2's file grows is for each program to decide
            daemon("query-named-block-nodes")

    real, ours = both(script, oracle=System, prepare=prepare)
    assert printed(ours) == printed(real)
    for name in ("raw.img", "q.qcow2"):
        theirs = str(real.folder / name)
        assert "identical" in image("compare", name, theirs, cwd=ours.folder)


def test_a_raw_image_is_worked_on_alike(both: Both) -> None:
    run_all(both, "raw")


def test_a_qcow2_image_is_worked_on_alike(both: Both) -> None:
    run_all(both, "q")


def test_a_null_device_is_worked_on_alike(both: Both) -> None:
    run_all(both, "n")


def test_a_read_only_node_is_worked_on_alike(both: Both) -> None:
    run_all(both, "ro")


@pytest.mark.parametrize(("node", "seed"), [("raw", 1), ("q", 2), ("n", 3)])
def test_random_lines_are_answered_alike(both: Both, node: str, seed: int) -> None:
    source = random.Random(seed)
    run_all(both, node, [random_line(source) for _ in range(300)])


@pytest.mark.parametrize("node", ["raw", "q", "n"])
def test_an_image_is_reopened_alike(both: Both, node: str) -> None:
    def script(daemon: Daemon) -> None:
        add_nodes(daemon)
        for line in REOPEN:
            human(daemon, f'qemu-io {node} "{line}"')
            daemon("query-named-block-nodes", flat=True)

    real, ours = both(script, oracle=System, prepare=prepare)
    assert printed(ours) == printed(real)


def test_lines_of_the_monitor_are_read_alike(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        add_nodes(daemon)
        for line in HMP:
            human(daemon, line)
        daemon.execute("human-monitor-command", {"command-line": "help", "cpu-index": 0})
        daemon.execute("human-monitor-command", {})

    real, ours = both(script, oracle=System, prepare=prepare)
    assert printed(ours) == printed(real)


def test_a_job_in_the_way_is_reported_alike(both: Both) -> None:
    def script(daemon: Daemon) -> None:
        add_nodes(daemon)
        slow = {"speed": 1, "x_perf": {"max-chunk": 65536}}  # one cluster, then a long wait
        daemon("blockdev-backup", job_id="j", device="raw", target="q", sync="full", **slow)
        human(daemon, 'qemu-io q "write 0 1k"')
        human(daemon, 'qemu-io q "truncate 2M"')
        human(daemon, 'qemu-io raw "write -q 0 1k"')

    real, ours = both(script, oracle=System, prepare=prepare, racing=True)
    assert printed(ours) == printed(real)
