"""What shape a disk is said to have: cylinders of hard disks, formats of floppies.

After hw/block/hd-geometry.c and hw/block/fdc.c.
"""

from contextlib import suppress
from typing import Final, NamedTuple

from blockemu.backend import Backend

SECTOR: Final = 512  # bytes
_TABLE, _ENTRY, _MAGIC = 0x1BE, 16, b"\x55\xaa"
_MOST_CYLINDERS: Final = 16383


class Geometry(NamedTuple):
    """Cylinders, heads, sectors of a track; how a BIOS translates them."""

    cylinders: int
    heads: int
    sectors: int
    translation: str


class Format(NamedTuple):
    """A format of floppies: the drive that it is of, sectors of a track, tracks, sides."""

    drive: str
    sectors: int
    tracks: int
    sides: int

    @property
    def size(self) -> int:
        """Sectors in all."""
        return self.sectors * self.tracks * self.sides


def _formats(text: str) -> tuple[Format, ...]:
    rows = (row.split() for row in text.split(";"))
    return tuple(Format(drive, int(a), int(b), int(c)) for drive, a, b, c in rows)


FORMATS: Final = _formats(
    "144 18 80 2; 144 20 80 2; 144 21 80 2; 144 21 82 2; 144 21 83 2; 144 22 80 2; 144 23 80 2;"
    "144 24 80 2; 288 36 80 2; 288 39 80 2; 288 40 80 2; 288 44 80 2; 288 48 80 2; 144 9 80 2;"
    "144 10 80 2; 144 10 82 2; 144 10 83 2; 144 13 80 2; 144 14 80 2; 120 15 80 2; 120 18 80 2;"
    "120 18 82 2; 120 18 83 2; 120 20 80 2; 120 9 80 2; 120 11 80 2; 120 9 40 2; 120 9 40 1;"
    "120 10 41 2; 120 10 42 2; 120 8 40 2; 120 8 40 1; 144 9 80 1"
)


def drive_type(sectors: int, fallback: str) -> str:
    """Return the type of drive that a medium of so many sectors is of (pick_geometry)."""
    return next((each.drive for each in FORMATS if each.size == sectors), fallback)


async def guess(backend: Backend) -> Geometry:
    """Tell a disk's geometry by its partition table, or else by its size (hd_geometry_guess)."""
    total = backend.length // SECTOR
    found = await _by_partitions(backend, total)
    cylinders = max(2, min(total // (16 * 63), _MOST_CYLINDERS))
    if found is None:
        return Geometry(cylinders, 16, 63, translate(cylinders, 16, 63))
    if found.heads > 16:
        return Geometry(cylinders, 16, 63, "large" if cylinders * 16 <= 131072 else "lba")
    return found


def translate(cylinders: int, heads: int, sectors: int) -> str:
    """Tell how a BIOS translates a geometry (hd_bios_chs_auto_trans)."""
    return "none" if cylinders <= 1024 and heads <= 16 and sectors <= 63 else "lba"


async def _by_partitions(backend: Backend, total: int) -> Geometry | None:
    """Look where a partition ends: that is the end of a cylinder (guess_disk_lchs)."""
    first = bytearray(SECTOR)
    with suppress(OSError):
        await backend.pread(0, first)
    if first[-2:] != _MAGIC:
        return None
    for at in range(_TABLE, _TABLE + 4 * _ENTRY, _ENTRY):
        heads, sectors = first[at + 5] + 1, first[at + 6] & 63
        length = int.from_bytes(first[at + 12 : at + 16], "little")
        if not length or heads == 1 or not sectors:
            continue
        cylinders = total // (heads * sectors)
        if 1 <= cylinders <= _MOST_CYLINDERS:
            return Geometry(cylinders, heads, sectors, "none")
    return None
