"""How large the file of an image would be."""

from blockemu.records import record


@record(frozen=True)
class Measured:
    """Bytes: with what is in the source, with all of the disk written, and of the bitmaps.

    ``bitmaps`` is None unless both the source and the new image can store some.
    """

    required: int
    fully_allocated: int
    bitmaps: int | None = None
