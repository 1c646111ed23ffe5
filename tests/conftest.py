"""What all tests share: Hypothesis profiles, and the one rule about programs that may be missing.

A test that needs a program of QEMU's or nbdkit's asks for it by ``program("qemu-img")``.  Where it
is not installed the test is skipped, except in CI (``CI=true``) or under
``BLOCKEMU_COMPAT=require``, where that is a failure: a skip must never hide one.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ORACLE = "7.2"  # replies and texts are compared with this QEMU, so another one proves nothing
ORACLES = frozenset({"qemu-storage-daemon", "qemu-system-x86_64"})
COMPAT = Path(__file__).parent / "compat"

# The programs are started hundreds of times: without this they might be compiled each time anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

_ANY_SPEED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, database=None, print_blob=True, **_ANY_SPEED)
settings.register_profile("fuzz", max_examples=20_000, print_blob=True, **_ANY_SPEED)
settings.load_profile("ci")  # pytest's --hypothesis-profile comes later and wins


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all below tests/compat, so that ``-m "not compat"`` needs no care in each file."""
    for item in items:
        if COMPAT in item.path.parents:
            item.add_marker("compat")


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Give ``program(name) -> path``; skips or fails the test where there is none that will do."""

    def find(name: str) -> str:
        path, lacking = _find(name)
        if not lacking:
            return path
        if compat_required():
            pytest.fail(f"{lacking}; nothing of tests/compat may be skipped here")
        pytest.skip(lacking)

    return find


def compat_required() -> bool:
    """Whether a missing program is a failure."""
    mode = os.environ.get("BLOCKEMU_COMPAT", "auto")
    if mode not in ("auto", "require"):
        raise pytest.UsageError(f"BLOCKEMU_COMPAT is 'auto' or 'require', not {mode!r}")
    return mode == "require" or os.environ.get("CI") == "true"


@cache
def _find(name: str) -> tuple[str, str]:
    """Return the path of a program, and what is wrong with it if anything is."""
    path = shutil.which(name)
    if path is None:
        return "", f"{name} is not installed"
    if name in ORACLES:
        banner = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
        if f" version {ORACLE}." not in banner.stdout:
            return path, f"{banner.stdout.splitlines()[0]}: only {ORACLE} can be compared with"
    return path, ""
