"""Guessing an image's format."""

from collections.abc import Mapping
from typing import Any

from blockemu.node import Node

Drivers = Mapping[str, type[Node[Any]]]


def probe(head: bytes, filename: str, drivers: Drivers) -> str:
    """Guess the format of an image by its first bytes: the name of the surest driver.

    A format's ``probe(head, filename)`` answers how sure it is, 0 to 100.
    """
    scores = {
        tag: driver.probe(head, filename)
        for tag, driver in drivers.items()
        if hasattr(driver, "probe")
    }
    return max(scores, key=lambda tag: scores[tag])
