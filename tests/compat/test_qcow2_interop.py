"""Images of every shape are read and written by QEMU and by us alike."""

import pytest
from compat.interop import exchange

BATCH = 25


@pytest.mark.parametrize("batch", range(20))
async def test_images_are_exchanged(tmp_path, program, batch):
    program("qemu-img")
    program("qemu-io")
    await exchange(range(batch * BATCH, (batch + 1) * BATCH), tmp_path)
