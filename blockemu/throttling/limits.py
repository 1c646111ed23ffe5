"""Limits of a throttle group as values: how they are written down and which go together.

After util/throttle.c.  ``values`` holds them by their names in ThrottleLimits.
"""

from blockemu.errors import QmpError
from blockemu.records import field, record, replace

MOST = 1_000_000_000_000_000
_LENGTH_MOST = (1 << 32) - 1
_SIGN = 1 << 63
_KINDS = tuple(f"{unit}-{way}" for unit in ("bps", "iops") for way in ("total", "read", "write"))
_DEFAULTS = {"iops-size": 0} | {
    f"{kind}{suffix}": value
    for kind in _KINDS
    for suffix, value in (("", 0), ("-max", 0), ("-max-length", 1))
}

LIMITS = {  # name in ThrottleLimits: that in BlockDeviceInfo and block_set_io_throttle
    f"{unit}-{way}{suffix}": f"{unit}{short}{suffix.replace('-', '_')}"
    for unit in ("bps", "iops")
    for suffix in ("", "-max", "-max-length")
    for way, short in (("total", ""), ("read", "_rd"), ("write", "_wr"))
} | {"iops-size": "iops_size"}


class TotalAndParts(QmpError):
    """A limit on all requests and one on reads or writes alone."""

    template = "bps/iops/max total values and read/write values cannot be used at the same time"


class SizeWithoutRate(QmpError):
    """There are no operations to measure."""

    template = "iops size requires an iops value to be set"


class LimitTooHigh(QmpError):
    """A rate out of range."""

    template = "bps/iops/max values must be within [0, {}]"


class NoBurstLength(QmpError):
    """Zero seconds."""

    template = "the burst length cannot be 0"


class LengthWithoutBurst(QmpError):
    """A length of nothing."""

    template = "burst length set without burst rate"


class BurstTooLong(QmpError):
    """Rate times length overflows."""

    template = "burst length too high for this burst rate"


class BurstWithoutRate(QmpError):
    """A burst above nothing."""

    template = "bps_max/iops_max require corresponding bps/iops values"


class BurstBelowRate(QmpError):
    """A burst slower than the rate."""

    template = "bps_max/iops_max cannot be lower than bps/iops"


class ThrottleLength(QmpError):
    """A burst length out of range: (member, most)."""

    template = "{} value must be in the range [0, {}]"


@record(frozen=True)
class ThrottleConfig:
    """The limits: 0 is none; units are bytes and requests a second, and seconds."""

    values: dict[str, int] = field(default_factory=_DEFAULTS.copy)

    def change(self, values: dict[str, int]) -> "ThrottleConfig":
        """Return a copy with some values changed, unchecked but for what a length can hold.

        Raises:
            ThrottleLength: a length is too big for it.
        """
        for name, value in values.items():
            if name.endswith("-length") and value > _LENGTH_MOST:
                raise ThrottleLength(name, _LENGTH_MOST)
        return self.change_unchecked(values)

    def change_unchecked(self, values: dict[str, int]) -> "ThrottleConfig":
        """Return a copy with some values changed, whatever they are."""
        new = dict(self.values)
        for name, value in values.items():  # a negative one is too high then
            new[name] = value % (1 << 64)
        return replace(self, values=new)

    @property
    def limits_anything(self) -> bool:
        """Whether there is a rate (throttle_enabled)."""
        return any(self.values[kind] for kind in _KINDS)

    def described(self) -> dict[str, int]:
        """Return the values as BlockDeviceInfo has them: without bursts that are not there."""
        limits = self.values
        shown = {LIMITS[kind]: limits[kind] for kind in _KINDS}
        for kind in _KINDS:
            if limits[f"{kind}-max"]:
                for suffix in ("-max", "-max-length"):
                    shown[LIMITS[kind + suffix]] = limits[kind + suffix]
        size = (limits["iops-size"] + _SIGN) % (2 * _SIGN) - _SIGN  # it is not unsigned there
        return shown | ({"iops_size": size} if size else {})

    def check(self) -> None:
        """Raise unless the limits go together (throttle_is_valid)."""
        limits = self.values
        for suffix in ("", "-max"):
            for unit in ("bps", "iops"):
                total, read, write = (limits[f"{unit}-{way}{suffix}"] for way in _WAYS)
                if total and (read or write):
                    raise TotalAndParts
        if limits["iops-size"] and not any(limits[f"iops-{way}"] for way in _WAYS):
            raise SizeWithoutRate
        for kind in _KINDS:
            _check_bucket(limits[kind], limits[f"{kind}-max"], limits[f"{kind}-max-length"])


_WAYS = ("total", "read", "write")


def _check_bucket(rate: int, burst: int, length: int) -> None:
    if rate > MOST or burst > MOST:
        raise LimitTooHigh(MOST)
    if not length:
        raise NoBurstLength
    if length > 1 and not burst:
        raise LengthWithoutBurst
    if burst and length > MOST // burst:
        raise BurstTooLong
    if burst and not rate:
        raise BurstWithoutRate
    if burst and burst < rate:
        raise BurstBelowRate
