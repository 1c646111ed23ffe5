"""How far something is."""


class Progress:
    """What is done and what remains, in the job's own unit: bytes for block jobs."""

    __slots__ = ("current", "remaining")

    def __init__(self) -> None:
        self.current = 0
        self.remaining = 0

    @property
    def total(self) -> int:
        """What there is to do, as estimated now."""
        return self.current + self.remaining

    def done(self, amount: int) -> None:
        """Count work that was done; the remaining is set separately."""
        self.current += amount
