"""How long tests take with our programs and with QEMU's, in one run: each with one and the other.

Processor time is that of what a test has waited for; daemons that outlive it are not in it.  It
says more than the clock on a machine that has other things to do.
"""

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from report import Case
from sandbox import PROGRAMS, Result

OURS = "+".join(PROGRAMS)
Run = Callable[[Case], Result]


@dataclass(frozen=True)
class Timed:
    """How a test went, and the seconds of processors that it took."""

    result: Result
    cpu: float

    @property
    def passed(self) -> bool:
        """Whether it passed."""
        return self.result.status == "pass"


def pairs(cases: Sequence[Case], most: int = 0) -> list[tuple[Case, Case]]:
    """Return each test with none and with all of our programs; ``most``: so many, evenly chosen."""
    wanted = sorted({(case.test, case.fmt) for case in cases if case.ours == OURS})
    if most and len(wanted) > most:
        wanted = [wanted[i * len(wanted) // most] for i in range(most)]
    return [(Case("", fmt, test), Case(OURS, fmt, test)) for test, fmt in wanted]


def timed(case: Case, run: Run) -> Timed:
    """Run a test, nothing else going on in this process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = run(case)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Timed(result, used)


def compare(wanted: Sequence[tuple[Case, Case]], run: Run, tell: Callable[[str], None]) -> int:
    """Run all, and tell how they compare; return 1 if none passed with both, else 0.

    Who comes first alternates, so that neither always finds what the other has left in memory.
    """
    both: list[tuple[Timed, Timed]] = []
    tell(f"{'test':32} {'format':8} {'real':>7} {'ours':>7} {'ratio':>6} {'cpu':>6}")
    for number, (real, ours) in enumerate(wanted):
        first, second = (real, ours) if number % 2 == 0 else (ours, real)
        found = {case: timed(case, run) for case in (first, second)}
        pair = found[real], found[ours]
        tell(f"{real.test:32} {real.fmt:8} {_line(*pair)}")
        if all(each.passed for each in pair):
            both.append(pair)
    tell(f"passed with both: {len(both)} of {len(wanted)}")
    if not both:
        return 1
    tell(_sum(both))
    return 0


def _line(real: Timed, ours: Timed) -> str:
    times = f"{real.result.seconds:7.1f} {ours.result.seconds:7.1f}"
    if real.passed and ours.passed:
        wall = _ratio(ours.result.seconds, real.result.seconds)
        return f"{times} {wall} {_ratio(ours.cpu, real.cpu)}"
    return f"{times}   real: {real.result.status}, ours: {ours.result.status}"


def _sum(both: Sequence[tuple[Timed, Timed]]) -> str:
    real, ours = (sum(pair[i].result.seconds for pair in both) for i in (0, 1))
    theirs, own = (sum(pair[i].cpu for pair in both) for i in (0, 1))
    wall, cpu = _ratio(ours, real).strip(), _ratio(own, theirs).strip()
    return (
        f"sum of seconds: real {real:.1f}, ours {ours:.1f}, ratio {wall}; "
        f"of processors: real {theirs:.1f}, ours {own:.1f}, ratio {cpu}"
    )


def _ratio(ours: float, real: float) -> str:
    return f"{ours / real:6.2f}" if real else f"{'?':>6}"
