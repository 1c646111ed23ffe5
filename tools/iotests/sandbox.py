"""Running one test: as the suite's own runner does, but shut off from all others.

A test gets folders of its own, a process group of its own, and an end: whatever it leaves running
is killed, also what has left the process group (each process knows the test's folder from its
environment).  The suite itself is only read.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from difflib import unified_diff
from pathlib import Path

PROGRAMS = {  # short name: (variable, QEMU's program, our main function)
    "io": ("QEMU_IO_PROG", "qemu-io", "blockemu.programs.io_cli"),
    "qsd": ("QSD_PROG", "qemu-storage-daemon", "blockemu.__main__"),
    "qemu": ("QEMU_PROG", "qemu-system-x86_64", "blockemu.programs.qemu_main"),
    "img": ("QEMU_IMG_PROG", "qemu-img", "blockemu.programs.img_cli"),
    "nbd": ("QEMU_NBD_PROG", "qemu-nbd", "blockemu.programs.nbd_cli"),
}
LAUNCHER = """\
#!{python}
import os, sys
sys.dont_write_bytecode = False  # only the suite shall stay as it is
log = os.open(os.environ["BLOCKEMU_USED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(log, b"{name}\\n")
os.close(log)
sys.path.insert(0, "{root}")
from {module} import main
sys.exit(main())
"""
REAL_LAUNCHER = """\
#!/bin/sh
echo {name} >> "$BLOCKEMU_USED"
exec {real} "$@"
"""
# Debian's QEMU lacks the accelerator for tests, in which no guest runs.
TCG_LAUNCHER = """\
#!/bin/sh
echo {name} >> "$BLOCKEMU_USED"
left=$#
before=
while [ $left -gt 0 ]; do
    word=$1
    shift
    [ "$before" = -accel ] && [ "$word" = qtest ] && word=tcg
    before=$word
    set -- "$@" "$word"
    left=$((left - 1))
done
exec {real} "$@"
"""
ROOT = Path(__file__).resolve().parent.parent.parent
NOT_GENERIC = frozenset({"bochs", "cloop", "dmg", "vvfat"})


@dataclass(frozen=True)
class Setup:
    """What tests run on: the suite, the programs by variable, the image format and protocol."""

    suite: Path
    programs: Mapping[str, str]
    fmt: str
    protocol: str = "file"
    machine: str = ""
    timeout: float = 120  # seconds for one test
    running: set[int] = field(default_factory=set)  # process groups
    stopped: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """End the tests that are running; how they went says nothing."""
        self.stopped.set()
        for group in list(self.running):
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


@dataclass
class Result:
    """How a test went: ``pass``, ``fail`` or ``notrun``, and why; ``used``: ours that it ran."""

    status: str
    why: str = ""
    seconds: float = 0.0
    used: list[str] = field(default_factory=list)
    diff: list[str] = field(default_factory=list)


def launchers(ours: list[str], folder: Path) -> dict[str, str]:
    """Return all programs by variable: launchers made in ``folder`` that note what is used.

    If ``ours`` is empty, the use of QEMU's programs is noted, else that of ours only.  Launchers
    are called like QEMU's programs: some tests compare the name in error messages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    programs = {}
    for short, (variable, name, module) in PROGRAMS.items():
        path, real = folder / name, shutil.which(name)
        programs[variable] = str(path)
        if short in ours:
            names = {"python": sys.executable, "root": ROOT, "name": name, "module": module}
            path.write_text(LAUNCHER.format(**names))
        elif real is None:
            raise SystemExit(f"{name} is not installed")
        elif ours:
            programs[variable] = real
            continue
        else:
            text = TCG_LAUNCHER if short == "qemu" and lacks_qtest(real) else REAL_LAUNCHER
            path.write_text(text.format(name=name, real=real))
        path.chmod(0o755)
    return programs


def lacks_qtest(qemu: str) -> bool:
    """Tell whether a QEMU has no accelerator that runs nothing."""
    shown = subprocess.run(
        [qemu, "-accel", "help"], check=False, capture_output=True, text=True
    ).stdout
    return "qtest" not in shown.split()


def together(ours: str) -> str:
    """Return short names joined by ``+`` in the order that results have them in."""
    given = ours.split("+")
    unknown = [short for short in given if short not in PROGRAMS]
    if unknown:
        raise SystemExit(f"no such program: {' '.join(unknown)}")
    return "+".join(short for short in PROGRAMS if short in given)


def default_machine(qemu: str) -> str:
    """Ask for the machine that a program has if none is said, by its shortest name."""
    shown = subprocess.run(
        [qemu, "-machine", "help"],
        env={**os.environ, "BLOCKEMU_USED": os.devnull},
        check=True,
        capture_output=True,
        text=True,
    )
    lines = shown.stdout.splitlines()
    name = next((line.split()[0] for line in lines if line.endswith(" (default)")), "")
    alias = (line.split()[0] for line in lines if line.endswith(f" (alias of {name})"))
    return next(alias, name) if name else ""


def all_tests(suite: Path) -> list[str]:
    """Return the names of the suite's tests, in order."""
    numbered = [path.name for path in suite.glob("[0-9][0-9][0-9]")]
    named = [p.name for p in (suite / "tests").iterdir() if (p.parent / f"{p.name}.out").is_file()]
    return sorted(numbered) + sorted(named)


def path_of(suite: Path, test: str) -> Path:
    """Return where a test is."""
    return suite / test if (suite / test).is_file() else suite / "tests" / test


def run_test(test: str, setup: Setup) -> Result:
    """Run a test."""
    file = path_of(setup.suite, test)
    reference = reference_of(file, setup)
    if not reference.is_file():
        return Result("notrun", "no reference output")
    with scratch() as folder:
        env = environment(setup, folder)
        begun = time.monotonic()
        status = play(file, env, folder / "out", setup)
        result = judge(test, status, reference, folder, setup)
        result.seconds = round(time.monotonic() - begun, 1)
        if (folder / "used").exists():
            result.used = sorted(set((folder / "used").read_text().split()))
        return result


def reference_of(file: Path, setup: Setup) -> Path:
    """Return the expected output, which may depend on the format or the machine."""
    for suffix in (f"out.{setup.fmt}", f"{setup.machine}.out"):
        reference = file.with_name(f"{file.name}.{suffix}")
        if reference.is_file():
            return reference
    return file.with_name(f"{file.name}.out")


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder with ``test`` and ``sock`` in it; its path is short, for sockets' sake."""
    folder = Path(tempfile.mkdtemp(prefix="io-"))
    for name in ("test", "sock"):
        (folder / name).mkdir()
    try:
        yield folder
    finally:
        kill_leftovers(folder)
        subprocess.run(["chmod", "-R", "u+rwX", folder], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def environment(setup: Setup, folder: Path) -> dict[str, str]:
    """Return the environment that tests rely on."""
    suite, fmt = setup.suite, setup.fmt
    io_options = "--cache writeback --aio threads"
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "GDB_OPTIONS")}
    env |= setup.programs
    env |= {
        "PYTHONPATH": f"{suite}:{suite.parent.parent / 'python'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHON": system_python(),
        "TEST_DIR": str(folder / "test"),
        "SOCK_DIR": str(folder / "sock"),
        "SAMPLE_IMG_DIR": str(suite / "sample_images"),
        "QEMU_OPTIONS": "-nodefaults -display none -accel qtest",
        "QEMU_IO_OPTIONS": f"{io_options} -f {fmt}" if fmt != "luks" else io_options,
        "QEMU_IO_OPTIONS_NO_FMT": io_options,
        "IMGFMT": fmt,
        "IMGPROTO": setup.protocol,
        "AIOMODE": "threads",
        "CACHEMODE": "writeback",
        "CACHEMODE_IS_DEFAULT": "true",
        "IMGFMT_GENERIC": "false" if fmt in NOT_GENERIC else "true",
        "IMGOPTSSYNTAX": "true" if fmt == "luks" else "false",
        "QEMU_DEFAULT_MACHINE": setup.machine,
        "MALLOC_PERTURB_": str(random.randrange(1, 255)),
        "BLOCKEMU_USED": str(folder / "used"),
    }
    if fmt == "luks":
        env |= {"IMGKEYSECRET": "123456", "IMGOPTS": "iter-time=10"}
    if fmt == "vmdk":
        env["IMGOPTS"] = "zeroed_grain=on"
    return env


def system_python() -> str:
    """Return the Python for tests: not the one of our virtual environment, which has other uses."""
    return "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable


def play(file: Path, env: Mapping[str, str], output: Path, setup: Setup) -> int | None:
    """Run a test's program; return its exit status, None if it took too long."""
    with file.open("rb") as f:
        is_python = f.readline().rstrip() == b"#!/usr/bin/env python3"
    command = [env["PYTHON"], str(file)] if is_python else [str(file)]
    with output.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=file.parent,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        setup.running.add(process.pid)
        try:
            return process.wait(setup.timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            setup.running.discard(process.pid)


def kill_leftovers(folder: Path) -> None:
    """Kill the processes that have ``folder`` in their environment: the test's daemons."""
    mark = f"TEST_DIR={folder}/".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if mark in b"\0" + (entry / "environ").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)


def judge(test: str, status: int | None, reference: Path, folder: Path, setup: Setup) -> Result:
    """Compare what a test printed with what it should have."""
    skipped = folder / "test" / f"{test}.notrun"
    if status == 0 and skipped.is_file():
        return Result("notrun", skipped.read_text().strip())
    diff = differences(reference, folder / "out", folder)
    if status is None:
        return Result("fail", f"not done after {setup.timeout:.0f} s", diff=diff)
    if status != 0:
        return Result("fail", first_line(diff) or f"exit status {status}", diff=diff)
    if diff:
        return Result("fail", first_line(diff), diff=diff)
    return Result("pass")


def differences(reference: Path, output: Path, folder: Path) -> list[str]:
    """Return a unified diff; blanks at the ends of lines do not count."""
    expected, got = (
        [line.rstrip() for line in path.read_text(errors="replace").split("\n")]
        for path in (reference, output)
    )
    lines = unified_diff(expected, got, "expected", "got", lineterm="")
    return [line.replace(str(folder), "FOLDER") for line in lines]


def first_line(diff: list[str]) -> str:
    """Return the first line of a diff that is ours alone, or else the first that is missing."""
    body = diff[2:]
    ours = next((line[1:].strip() for line in body if line[:1] == "+" and line[1:].strip()), "")
    missing = next((line[1:].strip() for line in body if line[:1] == "-" and line[1:].strip()), "")
    return ours or (f"missing: {missing}" if missing else "")
