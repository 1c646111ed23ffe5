"""QMP: round trips, one at a time and 64 in flight; nodes that come and go."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from time import perf_counter
from typing import Any

from daemon import Daemon
from programs import ONE_CPU, cpu, on
from qmp import Session
from report import OURS, REAL, Goal, Report, Sample

REQUEST = b'{"execute": "query-version"}\n'
SAMPLE = 0.4  # seconds that a sample takes, about
DEPTH = 64
PROGRAMS = (REAL, OURS)


def per_second(daemon: Daemon, depth: int) -> Sample:
    """Send ``depth`` requests at once, take the replies, again and again; return requests/s."""
    batch, done, pid = REQUEST * depth, 0, daemon.process.pid
    before, began = cpu(pid), perf_counter()
    while (spent := perf_counter() - began) < SAMPLE:
        daemon.socket.sendall(batch)
        daemon.lines(depth)
        done += depth
    return Sample(done / spent, (cpu(pid) - before) / done)


def coming_and_going(session: Session, node: dict[str, Any]) -> Sample:
    """Add and delete a node, again and again; return pairs a second."""
    done, before, began = 0, cpu(session.pid), perf_counter()
    while (spent := perf_counter() - began) < SAMPLE:
        session("blockdev-add", node | {"node-name": "n"})
        session("blockdev-del", node_name="n")
        done += 1
    return Sample(done / spent, (cpu(session.pid) - before) / done)


def run(report: Report) -> None:
    """Measure pinned, then unpinned."""
    every = os.sched_getaffinity(0)
    for where, cpus in (("client and daemon on one core", ONE_CPU), ("not pinned", every)):
        with report.section(f"QMP query-version, {where}"), ExitStack() as stack:
            stack.enter_context(on(cpus))
            daemons = {name: stack.enter_context(Daemon(name, cpus=cpus)) for name in PROGRAMS}
            for daemon in daemons.values():
                daemon.ready()
            for title, depth, goal in (("one at a time", 1, 5), (f"{DEPTH} in flight", DEPTH, 10)):
                variants: dict[str, Callable[[], Sample]] = {
                    name: lambda daemon=daemon, depth=depth: per_second(daemon, depth)
                    for name, daemon in daemons.items()
                }
                aim = Goal(ratio=goal) if cpus is ONE_CPU else None
                report.compare(title, variants, "op/s", more_is_better=True, goal=aim, warm=True)
    with report.section("Nodes added and deleted, on one core"), ExitStack() as stack:
        stack.enter_context(on(ONE_CPU))
        sessions = {name: stack.enter_context(Session(name)) for name in PROGRAMS}
        null = {"driver": "null-co", "size": 1 << 30}
        for title, node in (
            ("null-co", null),
            ("raw over null-co", {"driver": "raw", "file": null}),
        ):
            variants = {
                name: lambda session=session, node=node: coming_and_going(session, node)
                for name, session in sessions.items()
            }
            report.compare(
                f"blockdev-add, -del of {title}", variants, "op/s", more_is_better=True, warm=True
            )
