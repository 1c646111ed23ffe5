"""Long histories in which most commands are taken: ours says what the real daemon says, all along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from compat.daemon import StorageDaemon
from compat.drawn_histories import BlockemuForGuests, compare
from hypothesis import settings

EACH = 50  # commands
SEEDS = range(max(8, settings.default.max_examples // 20))


@pytest.mark.parametrize("seed", SEEDS)
def test_both_daemons_tell_the_same_story(
    seed: int, program: Callable[[str], str], tmp_path: Path
) -> None:
    for name in ("qemu-img", "qemu-io", StorageDaemon.kind):
        program(name)
    compare(StorageDaemon, BlockemuForGuests, seed, EACH, tmp_path)
