"""What a migration may do, and which of that goes together (migrate_caps_check)."""

from collections.abc import Sequence

from blockemu.errors import QmpError
from blockemu.schema.migration import MigrationCapability as C
from blockemu.schema.migration import MigrationCapabilityStatus


class NoColo(QmpError):
    """There is no second machine that runs along."""

    template = "QEMU compiled without replication module can't enable COLO"


class PostcopyIgnoresShared(QmpError):
    """Pages that are not sent cannot be asked for."""

    template = "Postcopy is not compatible with ignore-shared"


class NoBackgroundSnapshot(QmpError):
    """There is no memory whose changes could be followed."""

    template = "Background-snapshot is not supported by host kernel"


class NoZeroCopy(QmpError):
    """Pages that are changed before they are sent must be copied."""

    template = "Zero copy only available for non-compressed non-TLS multifd migration"


class NoMultifd(QmpError):
    """The way that the stream comes is a single one."""

    template = "multifd is not supported by current protocol"


class PreemptNeedsPostcopy(QmpError):
    """Pages that are urgent are those that were asked for."""

    template = "Postcopy preempt requires postcopy-ram"


class PreemptWithCompression(QmpError):
    """Urgent pages must not wait for threads that compress."""

    template = "Postcopy preempt not compatible with compress"


class MultifdWithCompression(QmpError):
    """Other channels do not go with threads that compress."""

    template = "Multifd is not compatible with compress"


class Capabilities:
    """The capabilities that are on."""

    def __init__(self) -> None:
        self._on: set[C] = set()

    def __contains__(self, capability: C) -> bool:
        return capability in self._on

    @property
    def postcopy(self) -> bool:
        """Whether the machine may run there before all is there."""
        return C.POSTCOPY_RAM in self._on or C.DIRTY_BITMAPS in self._on

    @property
    def answers(self) -> bool:
        """Whether the other side is to say that it has all."""
        return C.POSTCOPY_RAM in self._on or C.RETURN_PATH in self._on

    def change(
        self,
        wanted: Sequence[MigrationCapabilityStatus],
        *,
        single: bool = False,
        plain: bool = True,
    ) -> None:
        """Switch some on or off.

        ``single``: the stream comes by something that there is one of; ``plain``: pages are neither
        compressed nor encrypted.

        Raises:
            QmpError: they do not go together; all are as before.

        """
        on = set(self._on)
        for each in wanted:
            (on.add if each.state else on.discard)(each.capability)
        _check(on, single=single, plain=plain)
        self._on = on

    def status(self) -> list[MigrationCapabilityStatus]:
        """Describe all."""
        return [MigrationCapabilityStatus(capability=c, state=c in self._on) for c in C]


def _check(on: set[C], *, single: bool, plain: bool) -> None:
    if C.X_COLO in on:
        raise NoColo(hint="Please enable replication before COLO.\n")
    if C.POSTCOPY_RAM in on and C.X_IGNORE_SHARED in on:
        raise PostcopyIgnoresShared
    if C.BACKGROUND_SNAPSHOT in on:
        raise NoBackgroundSnapshot
    copied = C.MULTIFD not in on or C.COMPRESS in on or C.XBZRLE in on or not plain
    if C.ZERO_COPY_SEND in on and copied:
        raise NoZeroCopy
    if single and C.MULTIFD in on:
        raise NoMultifd
    if C.POSTCOPY_PREEMPT in on:
        if C.POSTCOPY_RAM not in on:
            raise PreemptNeedsPostcopy
        if C.COMPRESS in on:
            raise PreemptWithCompression
    if C.MULTIFD in on and C.COMPRESS in on:
        raise MultifdWithCompression
