"""Dropping metadata from memory that nobody may need any more (cache-clean-interval)."""

from blockemu.clocks import Cancel
from blockemu.drivers.qcow2.image import Image


class Cleaner:
    """Looks after one image's tables, every so many seconds of the machine's clock.

    QEMU keeps what was used since the last time.  Here all goes that is not changed: to note each
    use would cost more than to read again what is used.
    """

    def __init__(self, image: Image) -> None:
        self.image = image
        self._cancel: Cancel | None = None

    def start(self) -> None:
        """Begin, or go on with another interval."""
        self.stop()
        seconds = self.image.settings.clean_interval
        if seconds:
            clock = self.image.node.services.clocks.virtual
            self._cancel = clock.timer(seconds * 1_000_000_000, self._clean)

    def stop(self) -> None:
        """Clean no more."""
        if self._cancel is not None:
            self._cancel()
            self._cancel = None

    def _clean(self) -> None:
        self.image.mapping.make_room(0)
        self.image.refcounts.make_room(0)
        self.start()
