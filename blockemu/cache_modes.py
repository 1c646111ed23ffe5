"""The cache modes that programs know by name (bdrv_parse_cache_mode, block.c)."""

from collections.abc import Mapping
from typing import Final, NamedTuple


class CacheMode(NamedTuple):
    """How an image is cached: around the host's cache, without flushes, durable at once."""

    direct: bool
    no_flush: bool
    write_through: bool


CACHE_MODES: Final[Mapping[str, CacheMode]] = {
    "none": CacheMode(direct=True, no_flush=False, write_through=False),
    "off": CacheMode(direct=True, no_flush=False, write_through=False),
    "directsync": CacheMode(direct=True, no_flush=False, write_through=True),
    "writeback": CacheMode(direct=False, no_flush=False, write_through=False),
    "unsafe": CacheMode(direct=False, no_flush=True, write_through=False),
    "writethrough": CacheMode(direct=False, no_flush=False, write_through=True),
}
