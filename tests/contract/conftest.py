"""Every test of this folder runs on every disk."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest
from contract.disks import DISKS, Disk, Guest


class Opens(Protocol):
    """Opens the disk under test for a guest."""

    def __call__(
        self, *, plans: bool = True, folder: str = ""
    ) -> AbstractAsyncContextManager[Guest]: ...


@pytest.fixture(params=DISKS, ids=str)
def disk(request: pytest.FixtureRequest) -> Disk:
    return request.param


@pytest.fixture
def opens(disk: Disk, tmp_path: Path) -> Opens:
    def opens(*, plans: bool = True, folder: str = "") -> Guest:
        (tmp_path / folder).mkdir(exist_ok=True)
        return Guest(disk, tmp_path / folder, plans=plans)

    return opens
