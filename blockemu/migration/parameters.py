"""The parameters of a migration: what they are by default, and what they may be.

After migrate_params_check, migration/migration.c.
"""

from typing import Any, Final, NamedTuple

from blockemu.errors import InvalidParameterValue
from blockemu.migration.aliases import incoming, outgoing
from blockemu.migration.capabilities import NoZeroCopy
from blockemu.qmp_server.qapi import ABSENT, fields
from blockemu.schema.migration import (
    MigrateSetParameters,
    MigrationParameters,
    MultiFDCompression,
)

_PAGE: Final = 4096
_MOST_DOWNTIME: Final = 2000 * 1000  # milliseconds
_DEFAULTS: Final = MigrationParameters(
    announce_initial=50,
    announce_max=550,
    announce_rounds=5,
    announce_step=100,
    compress_level=1,
    compress_threads=8,
    compress_wait_thread=True,
    decompress_threads=2,
    throttle_trigger_threshold=50,
    cpu_throttle_initial=20,
    cpu_throttle_increment=10,
    cpu_throttle_tailslow=False,
    tls_creds="",
    tls_hostname="",
    tls_authz="",
    max_bandwidth=128 << 20,
    downtime_limit=300,
    x_checkpoint_delay=20000,
    block_incremental=False,
    multifd_channels=2,
    xbzrle_cache_size=64 << 20,
    max_postcopy_bandwidth=0,
    max_cpu_throttle=99,
    multifd_compression=MultiFDCompression.NONE,
    multifd_zlib_level=1,
    multifd_zstd_level=1,
)
_KEPT: Final = ("multifd_zlib_level", "multifd_zstd_level")  # QEMU forgets what is said of these


class Limit(NamedTuple):
    """A number that has bounds: its name in errors, the bounds, and how errors tell of them."""

    name: str
    low: int
    high: int
    words: str


_COUNT: Final = "a value between 1 and 255"
_PERCENT: Final = "an integer in the range of 1 to 99"
_LIMITS: Final = {
    "compress_level": Limit("compress_level", 0, 9, "a value between 0 and 9"),
    "compress_threads": Limit("compress_threads", 1, 255, _COUNT),
    "decompress_threads": Limit("decompress_threads", 1, 255, _COUNT),
    "throttle_trigger_threshold": Limit(
        "throttle_trigger_threshold", 1, 100, "an integer in the range of 1 to 100"
    ),
    "cpu_throttle_initial": Limit("cpu_throttle_initial", 1, 99, _PERCENT),
    "cpu_throttle_increment": Limit("cpu_throttle_increment", 1, 99, _PERCENT),
    "downtime_limit": Limit(
        "downtime_limit", 0, _MOST_DOWNTIME, "an integer in the range of 0 to (2000 * 1000) ms"
    ),
    "multifd_channels": Limit("multifd_channels", 1, 255, _COUNT),
}
_ANNOUNCEMENTS: Final = {
    "announce_initial": Limit("announce_initial", 0, 100000, "a value between 0 and 100000"),
    "announce_max": Limit("announce_max", 0, 100000, "a value between 0 and 100000"),
    "announce_rounds": Limit("announce_rounds", 0, 1000, "a value between 0 and 1000"),
    "announce_step": Limit("announce_step", 1, 10000, "a value between 0 and 10000"),
}


class Parameters:
    """The parameters as they are now."""

    def __init__(self) -> None:
        self.values = _DEFAULTS

    def change(self, wanted: MigrateSetParameters, *, zero_copy: bool = False) -> None:
        """Change some.

        Raises:
            QmpError: one may not be so; all are as before.

        """
        given = {
            name: value
            for name in fields(MigrateSetParameters)
            if (value := getattr(wanted, name)) is not ABSENT
        }
        for name in ("tls_creds", "tls_hostname", "tls_authz"):
            if name in given and given[name] is None:
                given[name] = ""
        given = {name: value for name, value in given.items() if value is not None}
        checked = vars(self.values) | {k: v for k, v in given.items() if k not in _KEPT}
        _check(checked)
        encrypted = checked["tls_creds"] or checked["multifd_compression"] != "none"
        if zero_copy and encrypted:
            raise NoZeroCopy
        self.values = MigrationParameters(**checked)

    def set_block_incremental(self, on: bool) -> None:
        """Say whether disks go without what their backing files hold."""
        self.values = MigrationParameters(**(vars(self.values) | {"block_incremental": on}))


def _check(values: dict[str, Any]) -> None:
    for name, limit in _LIMITS.items():
        _check_limit(values[name], limit)
    size = values["xbzrle_cache_size"]
    if size < _PAGE or size & size - 1:
        words = "a power of two no less than the target page size"
        raise InvalidParameterValue("xbzrle_cache_size", words)
    if not values["cpu_throttle_initial"] <= values["max_cpu_throttle"] <= 99:
        words = "an integer in the range of cpu_throttle_initial to 99"
        raise InvalidParameterValue("max_cpu_throttle", words)
    for name, limit in _ANNOUNCEMENTS.items():
        _check_limit(values[name], limit)
    mapping = values.get("block_bitmap_mapping")
    if mapping is not None:
        outgoing(mapping)
        incoming(mapping)


def _check_limit(value: int, limit: Limit) -> None:
    if not limit.low <= value <= limit.high:
        raise InvalidParameterValue(limit.name, limit.words)
