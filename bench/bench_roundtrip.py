"""Round trips of query-version: one at a time, and 64 in flight; on one core, and free."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter

from daemon import Daemon
from report import OURS, REAL, Report

REQUEST = b'{"execute": "query-version"}\n'
SAMPLE = 0.4  # seconds that a sample takes, about
DEPTH = 64


def per_second(daemon: Daemon, depth: int) -> float:
    """Send ``depth`` requests at once, take the replies, again and again; return requests/s."""
    batch, done, began = REQUEST * depth, 0, perf_counter()
    while (spent := perf_counter() - began) < SAMPLE:
        daemon.socket.sendall(batch)
        daemon.lines(depth)
        done += depth
    return done / spent


@contextmanager
def on(cpus: set[int]) -> Iterator[None]:
    """Run this process, the client, on ``cpus``."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure(daemon: Daemon, depth: int) -> Callable[[], float]:
    """Return what takes one sample."""
    return lambda: per_second(daemon, depth)


def run(report: Report) -> None:
    """Measure pinned, then unpinned."""
    every = os.sched_getaffinity(0)
    for where, cpus in (("client and daemon on one core", {min(every)}), ("not pinned", every)):
        report.section(f"QMP query-version, {where}")
        with ExitStack() as stack:
            stack.enter_context(on(cpus))
            daemons = {
                name: stack.enter_context(Daemon(name, cpus=cpus)).ready() for name in (REAL, OURS)
            }
            for title, depth in (("one at a time", 1), (f"{DEPTH} in flight", DEPTH)):
                variants = {name: measure(daemon, depth) for name, daemon in daemons.items()}
                report.compare(title, variants, "req/s", more_is_better=True)
