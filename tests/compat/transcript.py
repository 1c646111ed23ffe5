"""Comparison of two transcripts, as text, so that a difference reads like a diff."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

_MARKS = {"command": ">", "reply": "<", "event": "!"}
# Sizes on the host and times are not the daemon's to decide; that they are there is.
_UNSTABLE = {"actual-size", "package", "idle_time_ns"}
_SUFFIX = "_time_ns"


def stable(value: Any) -> Any:
    """Return *value* with what no two runs share replaced by its type's name."""
    if isinstance(value, list):
        return [stable(item) for item in value]
    if isinstance(value, dict):
        return {
            key: type(item).__name__ if key in _UNSTABLE or key.endswith(_SUFFIX) else stable(item)
            for key, item in value.items()
        }
    return value


def text(value: Any) -> str:
    """Return JSON in the order of the wire: key order is part of what a client sees."""
    return json.dumps(stable(value), ensure_ascii=False)


def lines(transcript: list[tuple[str, Any]]) -> list[str]:
    """Return one line for each thing that was said."""
    return [f"{_MARKS[what]} {text(value)}" for what, value in transcript]


def conversation(transcript: list[tuple[str, Any]]) -> list[str]:
    """Return commands and replies only."""
    return lines([item for item in transcript if item[0] != "event"])


def events_by_job(transcript: list[tuple[str, Any]]) -> dict[str, list[str]]:
    """Return the events of each job (or of none), in their order."""
    found: dict[str, list[str]] = {}
    for what, value in transcript:
        if what == "event":
            found.setdefault(_owner(value.get("data", {})), []).append(text(value))
    return found


def _owner(data: dict[str, Any]) -> str:
    return str(data.get("id", data.get("device", "")))


def differences(ours: str, real: str) -> Iterator[str]:
    """Say in which members two replies differ, or that only their order does."""
    try:
        yield from _walk("", json.loads(ours), json.loads(real))
    except ValueError:
        yield f"ours {ours}"


def _walk(path: str, ours: Any, real: Any) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(real, dict):
        for key in dict.fromkeys([*ours, *real]):
            yield from _walk(f"{path}.{key}", ours.get(key, "absent"), real.get(key, "absent"))
    elif isinstance(ours, list) and isinstance(real, list) and len(ours) == len(real):
        for i, pair in enumerate(zip(ours, real, strict=True)):
            yield from _walk(f"{path}[{i}]", *pair)
    elif ours != real:
        yield f"{path}: ours {ours!r}, real {real!r}"


def told(ours: list[str], real: list[str]) -> str:
    """Say where two lists of lines first differ, member by member."""
    for i, (mine, theirs) in enumerate(zip_longest(ours, real, fillvalue='"nothing"')):
        if mine != theirs:
            parts = differences(mine.lstrip("<>! "), theirs.lstrip("<>! "))
            return "\n".join([f"line {i}: ours {mine[:300]}", f"real {theirs[:300]}", *parts])
    return ""
