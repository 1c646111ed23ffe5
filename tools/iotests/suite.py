"""Where QEMU's own tests come from: Debian's source package, fetched by apt into a cache.

Nothing of it belongs to this project or gets into its tree.  apt is given lists and sources of its
own below the cache, made from the system's with ``deb-src`` for ``deb``: no right to change the
system's is needed, and nothing of it is changed.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "7.2"  # the QEMU that blockemu is compared with
SOURCES = Path("/etc/apt/sources.list")
TESTS = Path("tests", "qemu-iotests")


class NoSuite(Exception):
    """The tests cannot be had; the text says why and what helps."""


def cache() -> Path:
    """Return the folder for what is fetched and measured."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "blockemu" / "iotests"


def find(given: Path | None = None) -> Path:
    """Return the folder of the tests: the one given, or the cached one, fetched if need be.

    Raises:
        NoSuite: it is not there and cannot be fetched.

    """
    if given is not None:
        for folder in (given, given / TESTS):
            if (folder / "common.rc").is_file():
                return folder.resolve()
        raise NoSuite(f"{given} has no {TESTS}")
    unpacked = cache() / f"qemu-{VERSION}"
    if not (unpacked / TESTS / "common.rc").is_file():
        fetch(unpacked)
    return unpacked / TESTS


def fetch(to: Path) -> None:
    """Download the source package, and unpack it to ``to``."""
    if shutil.which("apt-get") is None:
        raise NoSuite("there is no apt-get here; say where QEMU's source is by --suite FOLDER")
    work = cache() / "apt"
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial", "source"):
        (work / folder).mkdir(parents=True)
    options = own_apt(work)
    say("reading the lists of source packages")
    run(["apt-get", "-qq", *options, "update"])
    version = newest(run(["apt-cache", *options, "showsrc", "qemu"]))
    say(f"downloading the source of qemu {version}")
    command = ["apt-get", "-qq", *options, "source", "--download-only", f"qemu={version}"]
    run(command, cwd=work / "source")
    unpack(work / "source", to)
    shutil.rmtree(work)


def own_apt(work: Path) -> list[str]:
    """Write sources for apt below ``work``; return the options that make it use them alone."""
    parts = work / "sources.list.d"
    parts.mkdir()
    system = [SOURCES, *sorted(SOURCES.with_suffix(".list.d").glob("*"))]
    for number, file in enumerate(file for file in system if file.is_file()):
        text = file.read_text()
        if file.suffix == ".sources":
            text = re.sub(r"(?m)^Types:.*$", "Types: deb-src", text)
        else:
            text = re.sub(r"(?m)^deb\s", "deb-src ", text)
        (parts / f"{number}{file.suffix}").write_text(text)
    (work / "sources.list").touch()
    return [
        f"-oDir::Etc::SourceList={work}/sources.list",
        f"-oDir::Etc::SourceParts={parts}",
        f"-oDir::State::Lists={work}/lists",
        f"-oDir::Cache={work}/cache",
        "-oAPT::Sandbox::User=",
    ]


def newest(shown: str) -> str:
    """Return the last version of ours in apt-cache's list of source packages."""
    found = re.findall(rf"(?m)^Version: ((?:\d+:)?{re.escape(VERSION)}\S*)$", shown)
    if not found:
        raise NoSuite(f"none of apt's sources has qemu {VERSION} (Debian 12 has it)")
    for version in found[1:]:
        test = ["dpkg", "--compare-versions", version, "gt", found[0]]
        if subprocess.run(test, check=False).returncode == 0:
            found[0] = version
    return str(found[0])


def unpack(source: Path, to: Path) -> None:
    """Unpack a source package with the distribution's patches applied."""
    if shutil.which("dpkg-source") is None:
        install("dpkg-dev")
    (description,) = source.glob("*.dsc")
    partial = to.with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    run(["dpkg-source", "--no-check", "--extract", str(description), str(partial)])
    for part in partial.iterdir():  # the tests and their Python modules are all that is needed
        if part.name not in ("tests", "python", "scripts"):
            shutil.rmtree(part) if part.is_dir() and not part.is_symlink() else part.unlink()
    shutil.rmtree(to, ignore_errors=True)
    partial.rename(to)


def install(package: str) -> None:
    """Install a Debian package, if we may."""
    may = [] if os.geteuid() == 0 else ["sudo", "-n"]
    command = [*may, "apt-get", "-qq", "install", "-y", "--no-install-recommends", package]
    for before in ([], [*may, "apt-get", "-qq", "update"]):  # a new machine's lists are empty
        try:
            if before:
                subprocess.run(before, check=False, stdout=subprocess.DEVNULL)
            if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0:
                return
        except FileNotFoundError:  # no sudo
            break
    raise NoSuite(f"{package} is needed: apt-get install {package}")


def run(command: list[str], cwd: Path | None = None) -> str:
    """Run a program; return what it prints."""
    done = subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise NoSuite(f"{' '.join(command[:1])}: {last[0]}")
    return done.stdout


def say(text: str) -> None:
    """Tell what takes so long."""
    print(f"iotests: {text}", file=sys.stderr, flush=True)
