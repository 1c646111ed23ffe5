"""The exchange of images with QEMU, over and over: a few images here, thousands in ``make fuzz``."""

import asyncio
import tempfile
from pathlib import Path

from compat.interop import exchange
from hypothesis import given, settings
from hypothesis import strategies as st

BATCH = 10
BATCHES = max(1, settings.default.max_examples // 50)


def test_images_are_exchanged(program):
    program("qemu-img")
    program("qemu-io")

    @settings(max_examples=BATCHES)
    @given(st.integers(0, 1 << 40))
    def exchanged(seed):
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(exchange(range(seed, seed + BATCH), Path(folder)))

    exchanged()
