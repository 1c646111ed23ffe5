"""Samples of variants, taken in turn: medians, ratios, noise, and the goal beside each."""

import statistics
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

REAL, OURS = "qemu-storage-daemon", "blockemu"


class Sample(NamedTuple):
    """A value in a row's unit, and the processor time that a unit of work took."""

    value: float
    cpu: float  # seconds; whatever the unit of work is, it is the same for all variants


Measure = Callable[[], float | Sample]


class Missing(Exception):
    """A program that a row needs is not installed."""


@dataclass(frozen=True)
class Goal:
    """What a row should reach: as a ratio to the real program, or in the row's own unit."""

    ratio: float | None = None
    most: float | None = None
    least: float | None = None

    def text(self, unit: str) -> str:
        """Say it."""
        if self.ratio is not None:
            return f">= {self.ratio:g} x"
        if self.most is not None:
            return f"<= {self.most:g} {unit}"
        return f">= {self.least:g} {unit}"

    def met(self, ours: float, ratio: float | None) -> bool:
        """Tell whether."""
        if self.ratio is not None:
            return ratio is not None and ratio >= self.ratio
        if self.most is not None:
            return ours <= self.most
        return self.least is not None and ours >= self.least


@dataclass
class Row:
    """One measurement: the last variant has the goal, the first is what it is held to."""

    name: str
    unit: str = ""
    medians: dict[str, float] = field(default_factory=dict)
    ratios: list[float] = field(default_factory=list)  # one a round
    cpu_ratio: float | None = None
    goal: Goal | None = None
    failure: str | None = None

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' ratios; above one: the last variant is better."""
        return statistics.median(self.ratios) if self.ratios else None

    def cells(self) -> list[str]:
        """Return the columns of the table."""
        goal = self.goal.text(self.unit) if self.goal else ""
        if self.failure is not None:
            return [self.name, self.unit, "", "", "", "", "", goal, f"failed: {self.failure}"]
        values = list(self.medians.values())
        first = number(values[0]) if len(values) > 1 else ""
        noise = f"{min(self.ratios):.2f} - {max(self.ratios):.2f}" if self.ratios else ""
        verdict = ""
        if self.goal:
            verdict = "yes" if self.goal.met(values[-1], self.ratio) else "**no**"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        cpu = "" if self.cpu_ratio is None else f"{self.cpu_ratio:.2f}"
        return [self.name, self.unit, first, number(values[-1]), ratio, noise, cpu, goal, verdict]


def number(value: float) -> str:
    """Return a number with three or more digits that count."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


HEADS = ["", "unit", "real", "ours", "ratio", "rounds' ratios", "CPU ratio", "goal", "met"]


@dataclass
class Section:
    """Rows under a title, and remarks."""

    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the table."""
        lines = [f"## {self.title}", ""]
        if self.rows:
            lines += [f"| {' | '.join(HEADS)} |", f"|{' --- |' * len(HEADS)}"]
            lines += [f"| {' | '.join(row.cells())} |" for row in self.rows]
        if self.notes:
            lines += ["", "```", *self.notes, "```"]
        return "\n".join(lines) + "\n"


class Report:
    """Takes samples of variants and keeps a row for each measurement."""

    def __init__(self, rounds: int | None) -> None:
        self._rounds = rounds
        self.sections: list[Section] = []

    @contextmanager
    def section(self, title: str) -> Iterator[None]:
        """Gather rows; what goes wrong while they are prepared ends the section, not the run."""
        self.sections.append(Section(title))
        print(f"\n{title}\n{'-' * len(title)}", flush=True)
        try:
            yield
        except Exception as error:
            self._add(Row("(all else)", failure=_said(error)))

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """Let no failure outside of all sections end the run."""
        try:
            yield
        except Exception as error:
            self.sections.append(Section(name))
            self._add(Row("(all)", failure=_said(error)))

    def compare(
        self,
        name: str,
        variants: Mapping[str, Measure],
        unit: str,
        *,
        rounds: int = 5,
        more_is_better: bool = False,
        goal: Goal | None = None,
        warm: bool = False,
    ) -> None:
        """Call all variants once a round; each call returns one sample in ``unit``.

        With ``warm`` a round before the first is thrown away.
        """
        row = Row(name, unit, goal=goal)
        samples: dict[str, list[Sample]] = {variant: [] for variant in variants}
        try:
            for measure in variants.values() if warm else ():
                measure()
            for _ in range(min(self._rounds, rounds) if self._rounds else rounds):
                for variant, measure in variants.items():
                    got = measure()
                    samples[variant].append(got if isinstance(got, Sample) else Sample(got, 0))
        except Exception as error:
            row.failure = _said(error)
            self._add(row)
            return
        row.medians = {v: statistics.median(s.value for s in taken) for v, taken in samples.items()}
        if len(samples) > 1:
            first, *_, last = samples.values()
            for one, other in zip(first, last, strict=True):
                if min(one.value, other.value) > 0:
                    better = one.value / other.value
                    row.ratios.append(1 / better if more_is_better else better)
            costs = [(a.cpu, b.cpu) for a, b in zip(first, last, strict=True) if a.cpu and b.cpu]
            if costs:
                row.cpu_ratio = statistics.median(a / b for a, b in costs)
        self._add(row)

    def note(self, text: str) -> None:
        """Add lines below the table."""
        print(text, flush=True)
        self.sections[-1].notes.append(text)

    def _add(self, row: Row) -> None:
        self.sections[-1].rows.append(row)
        name, unit, first, last, ratio, noise, cpu, goal, met = row.cells()
        beside = f"({noise}; CPU {cpu})" if cpu else f"({noise})" if noise else ""
        aim = f"goal {goal}: {met.strip('*')}" if goal else row.failure and f"failed: {row.failure}"
        held = f"{first:>10} ->" if first else " " * 13
        print(f"{name:44}{held}{last:>10} {unit:6}{ratio:>7} {beside:32}{aim or ''}", flush=True)


def _said(error: Exception) -> str:
    """Tell a failure in a line; the rest goes to standard error."""
    if not isinstance(error, Missing):
        traceback.print_exception(error, file=sys.stderr)
    text = str(error).strip() or type(error).__name__
    return " ".join(text.split())[:160].replace("|", "/")
