"""What must hold of a graph and its jobs whenever no step is half done (``--self-check``)."""

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import numpy as np

from blockemu.backend import Backend
from blockemu.edge import Edge
from blockemu.graph import Graph
from blockemu.jobs.block_job import BlockJob
from blockemu.jobs.job import Job
from blockemu.jobs.registry import Jobs
from blockemu.node import Node
from blockemu.perm import perm_names
from blockemu.schema.jobs import JobStatus

_STANDING = frozenset({JobStatus.PAUSED, JobStatus.STANDBY})


def faults(graph: Graph, jobs: Jobs) -> list[str]:
    """Return what is wrong, one line each; nothing if all is well."""
    found: list[str] = []
    for node in graph:
        found += _edges(graph, node)
        found += _permissions(node)
        found += _drains(node)
        found += _bitmaps(node)
    for backend in graph.backends.values():
        if backend.inserted is not None and backend not in backend.inserted.parents:
            found.append(f"{backend.describe_parent()} is on a node that does not know it")
    for job in jobs:
        found += _job(graph, job)
    return found


def _edges(graph: Graph, node: Node[Any]) -> Iterator[str]:
    if graph.nodes.get(node.name) is not node:
        yield f"node '{node.name}' goes by another name in the graph"
    if node.holds < 0:
        yield f"node '{node.name}' was let go of {-node.holds} times too often"
    if len(set(map(id, node.parents))) != len(node.parents):
        yield f"node '{node.name}' has a parent twice"
    for name, edge in node.children.items():
        if edge.parent is not node or edge.name != name:
            yield f"child '{name}' of node '{node.name}' belongs to another"
        if edge not in edge.node.parents:
            yield f"child '{name}' of node '{node.name}' does not know its parent"
        if graph.nodes.get(edge.node.name) is not edge.node:
            yield f"child '{name}' of node '{node.name}' is not in the graph"
    for edge in node.parents:
        if edge.node is not node:
            yield f"{_who(edge)} is said to be on node '{node.name}', and is not"
        if edge.parent is not None and edge.parent.children.get(edge.name) is not edge:
            yield f"{_who(edge)} does not know its child '{node.name}'"


def _permissions(node: Node[Any]) -> Iterator[str]:
    for one, other in permutations(node.parents, 2):
        missing = other.perm & ~one.shared
        if missing:
            names = perm_names(missing)
            yield f"{_who(other)} has {names} on '{node.name}', which {_who(one)} does not share"


def _drains(node: Node[Any]) -> Iterator[str]:
    if node.quiesce_counter < sum(edge.drains for edge in node.children.values()):
        yield f"node '{node.name}' is in fewer drained sections than its children"
    for edge in node.parents:
        if edge.drains != node.quiesce_counter:
            yield f"{_who(edge)} is in {edge.drains} drained sections of '{node.name}', not " + str(
                node.quiesce_counter
            )


def _bitmaps(node: Node[Any]) -> Iterator[str]:
    if node.bitmap_set is None:
        return
    for bitmap in node.bitmap_set:
        counted = int(np.unpackbits(bitmap.bits.words.view(np.uint8)).sum())
        if counted != bitmap.bits.count:
            yield f"bitmap {bitmap.name!r} counts {bitmap.bits.count} bits, and has {counted}"
        if bitmap.successor is not None and not bitmap.busy:
            yield f"bitmap {bitmap.name!r} has a successor and is not busy"
        if bitmap.length != node.length:
            yield f"bitmap {bitmap.name!r} is of {bitmap.length} bytes, its node {node.length}"


def _job(graph: Graph, job: Job) -> Iterator[str]:
    name = f"job '{job.id}'"
    if job.pause_count < 0:
        yield f"{name} was resumed more often than paused"
    if job.user_paused and not job.pause_count:
        yield f"{name} is paused by the user and not held"
    if job.status in _STANDING and not job.paused:
        yield f"{name} is {job.status.value} and at work"
    if not isinstance(job, BlockJob):
        return
    for edge in job.nodes:
        if graph.nodes.get(edge.node.name) is not edge.node:
            yield f"{name} claims a node that is gone"
        elif edge not in edge.node.parents:
            yield f"{name} claims node '{edge.node.name}', which does not know it"


def _who(edge: Edge) -> str:
    if edge.parent is not None:
        return f"child '{edge.name}' of node '{edge.parent.name}'"
    return edge.describe_parent() + (" (no root)" if not isinstance(edge, Backend) else "")
