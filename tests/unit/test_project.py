"""The project's own promises: pins, links, packaging, set-up, documents."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINKED = ["drivers", "images", "qmp_server"]


def canonical(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9_.-]+", requirement).group()
    return re.sub(r"[-_.]+", "-", name).lower()


def load_tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def shell(*command, **environment):
    variables = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)


# Pins


def test_constraints_pin_each_package_once_and_hold_nothing_else():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.!+-]+", line) for line in lines)
    names = [canonical(line) for line in lines]
    assert len(names) == len(set(names))


def test_every_declared_dependency_is_pinned():
    pinned = {canonical(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {canonical(line) for line in PROJECT["dependencies"]} <= pinned


# Links and packaging


@pytest.mark.parametrize("name", LINKED)
def test_a_top_level_folder_is_linked_into_the_package(name):
    assert (ROOT / "blockemu" / name).readlink() == Path("..") / name


@pytest.mark.parametrize("name", LINKED)
def test_a_folder_cannot_be_imported_by_its_own_name(name):
    command = [sys.executable, "-c", f"import {name}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert f"ImportError: import blockemu.{name}, not {name}" in done.stderr


def test_the_wheel_holds_the_package_and_nothing_beside_it(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"blockemu"}
    assert {"blockemu/drivers/file.py", "blockemu/qmp_server/qapi.py"} <= set(names)


# Set-up


def test_make_alone_lists_every_target():
    listing = shell("make", "--no-print-directory").stdout
    for target in ["run", "test", "check", "bench", "fuzz", "iotests", "docs", "clean"]:
        assert re.search(rf"^  make {target} +\w", listing, re.MULTILINE), target


@pytest.mark.parametrize("target", ["run", "test", "check", "bench", "fuzz", "docs"])
def test_a_target_makes_the_environment_first(target, tmp_path):
    plan = shell("make", "-n", target, f"VENV={tmp_path}/none").stdout.splitlines()
    assert plan[0] == f"sh tools/bootstrap.sh {tmp_path}/none"


def test_bootstrap_says_so_when_python_is_too_old(tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\n[ $1 = --version ] && echo Python 3.9.2 && exit\nexit 1\n")
    old.chmod(0o755)
    done = shell("sh", "tools/bootstrap.sh", str(tmp_path / "venv"), PYTHON=str(old))
    assert done.returncode == 1
    assert f"no Python 3.11 or newer: '{old}' is Python 3.9.2." in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(("environment", "status"), [({}, 0), ({"CI": "true"}, 1)])
def test_programs_that_cannot_be_installed_are_named_and_fail_only_in_ci(
    tmp_path, environment, status
):
    for name in ("cut", "sort", "tr", "sed"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    (tmp_path / "qemu-img").symlink_to("/bin/true")
    done = subprocess.run(
        ["/bin/sh", "tools/install-programs.sh"],
        cwd=ROOT,
        env={"PATH": str(tmp_path), "BLOCKEMU_INSTALL": "no", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status
    assert "nbdkit  (Debian package nbdkit)" in done.stderr
    assert "qemu-img " not in done.stderr


# Our own checks


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("drivers/x.py", "pass\n" * 501, "501 lines"),
        ("drivers/x.py", 'LOG = "/ro' + 'ot/log"\n', "a path of some machine"),
        ("drivers/x.py", "# for io" + "test 030\n", "the number of a QEMU test"),
        ("tests/unit/x.py", "time.sle" + "ep(1)\n", "a sleep in a test"),
        ("qmp_server/x.py", "    import num" + "py as np\n", "may not import numpy"),
        ("constraints.txt", "numpy @ https://example.org\n", "not name==version"),
    ],
)
def test_check_tree_finds(tmp_path, name, text, found):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "constraints.txt").touch()
    path.write_text(text)
    (line,) = load_tool("check_tree").findings(tmp_path, [name])
    assert line.startswith(f"{name}:1: ")
    assert found in line


def test_check_tree_allows_long_tests_and_ordinary_code(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "constraints.txt").write_text("numpy==2.0\n")
    (tmp_path / "tests/x.py").write_text("await asyncio.sleep(0)\n" * 501)
    assert list(load_tool("check_tree").findings(tmp_path, ["tests/x.py"])) == []


# Documents


def test_the_readme_offers_only_targets_that_exist():
    offered = set(re.findall(r"(?:^    |`)make ([a-z]+)\b", (ROOT / "README.md").read_text(), re.M))
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"run", "test", "check", "bench"} <= offered <= rules


@pytest.mark.parametrize("name", ["README.md", "docs/architecture.md", "docs/new-driver.md"])
def test_links_of_a_document_lead_somewhere(name):
    page = ROOT / name
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_architecture_names_every_layer():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c for c in config["contracts"] if c["id"] == "layers")["layers"]
    drawing = (ROOT / "docs/architecture.md").read_text()
    for layer in layers:
        assert any(name in drawing for name in re.findall(r"\w+", layer)), layer
