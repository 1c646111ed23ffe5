"""Samples of variants, taken in turn and printed as medians and ratios."""

import statistics
from collections.abc import Callable, Mapping

REAL, OURS = "qemu-storage-daemon", "blockemu"


class Report:
    """Takes samples of variants and prints a line for each measurement."""

    def __init__(self, rounds: int | None) -> None:
        self._rounds = rounds

    def section(self, title: str) -> None:
        """Begin a section."""
        print(f"\n{title}\n{'-' * len(title)}", flush=True)

    def compare(
        self,
        name: str,
        variants: Mapping[str, Callable[[], float]],
        unit: str,
        *,
        rounds: int = 9,
        more_is_better: bool = False,
    ) -> None:
        """Call all variants once a round; each call returns one sample in ``unit``."""
        samples: dict[str, list[float]] = {variant: [] for variant in variants}
        for _ in range(self._rounds or rounds):
            for variant, measure in variants.items():
                samples[variant].append(measure())
        medians = {variant: statistics.median(values) for variant, values in samples.items()}
        base = next(iter(medians.values()))
        print(f"{name} (median of {self._rounds or rounds}; lowest to highest)")
        for variant, median in medians.items():
            low, high = min(samples[variant]), max(samples[variant])
            ratio = median / base if more_is_better else base / median
            print(f"  {variant:24}{median:12,.1f} {unit:6} {low:12,.1f} to {high:,.1f}", end="")
            print(f"   {ratio:6.2f} times as fast" if median is not base else "", flush=True)

    def note(self, text: str) -> None:
        """Print lines as they are."""
        print(text, flush=True)
