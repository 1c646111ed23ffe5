"""What the programs tell of themselves before they start: versions, lists, options."""

import re
import subprocess

import pytest
from compat.test_blockemu_qemu import OURS, REAL, conversation
from compat.test_machine_facts import NONE

HELP = """
-machine help
-machine ?
-M help
-machine pc,help
-machine type=q35,?
-machine isapc,help
-machine none,help
-machine microvm,help
-machine type=help
-boot help
-smp help
-rtc help
-overcommit help
-global help
-add-fd help
-device virtio-blk,help
-device scsi-hd,?
-device absent,help
-object secret,help
-object secret_keyring,help
-object absent,help
-machine absent
-machine none -netdev foo
-machine none -netdev foo,id=x
-machine none -netdev user,id=1
-machine none -netdev user,id=x -netdev user,id=x
-machine none -netdev user,id=x,net=rubbish
""".strip().splitlines()
# A build without its display modules says so when it lists any drivers.
MODULES = re.compile("^qemu: module .*\n", re.MULTILINE)


@pytest.fixture(autouse=True)
def installed(program):
    program("qemu-system-x86_64")


def told(program, line):
    done = subprocess.run(
        [*program, *line.split()], capture_output=True, text=True, timeout=60, check=False
    )
    errors = MODULES.sub("", done.stderr)
    return done.returncode, done.stdout, re.sub("^[^ ]*: ", "PROGRAM: ", errors)


@pytest.mark.parametrize("line", HELP)
def test_options_that_ask_for_help_are_told_alike(line):
    assert told(OURS, line) == told(REAL, line)


@pytest.mark.parametrize("line", ["-version", "--version"])
def test_the_version_is_found_where_tools_look_for_it(line):
    versions = [
        re.match(r"QEMU emulator version (\d+\.\d+\.\d+) \(", told(program, line)[1])
        for program in (REAL, OURS)
    ]
    assert all(versions)
    assert len({version[1].rpartition(".")[0] for version in versions}) == 1


def test_all_of_qemus_options_are_named_by_help():
    def names(program):
        return set(re.findall(r"^ *-([a-z][\w-]*)", told(program, "-help")[1], re.MULTILINE))

    ours = set(re.findall(r"(?<![\w-])-([a-zA-Z][\w-]*)", told(OURS, "-help")[1]))
    assert names(REAL) - ours == set()


@pytest.mark.parametrize("line", ["-cpu help", "-display help", "-vga help", "-audiodev help"])
def test_lists_of_what_a_machine_lacks_begin_as_qemus(line):
    (status, text, _), (_, real, _) = told(OURS, line), told(REAL, line)
    assert status == 0
    assert text.splitlines()[0] == real.splitlines()[0]
    assert set(text.splitlines()) <= set(real.splitlines())


@pytest.mark.parametrize("line", ["-netdev help", "-nic model=help", "-accel help", "-d help"])
def test_other_lists_have_rows_of_qemus(line):
    ours, real = told(OURS, line), told(REAL, line)
    assert ours[0] == real[0]
    assert ours[1].splitlines()[0] == real[1].splitlines()[0]


def test_machines_are_those_of_the_version(tmp_path):
    def machines(program):
        said, _ = conversation(program, [], tmp_path, ["query-machines"], NONE)
        (answer,) = (line for line in said if '"name": "isapc"' in line)
        rows = re.findall(r"\{[^{}]*\}", answer)
        wanted = ("name", "alias", "is-default", "cpu-max", "deprecated")
        return {
            tuple(
                re.search(f'"{key}": [^,}}]*', row) is not None
                and re.search(f'"{key}": ([^,}}]*)', row)[1]
                for key in wanted
            )
            for row in rows
        }

    ours = machines(OURS)
    assert len(ours) > 50
    assert ours == machines(REAL)
