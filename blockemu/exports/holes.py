"""Holes in files of which NBD clients hear as they read."""

from blockemu.route import Leaf, Route, Segment, Segments


def known(leaf: Leaf | None, host: int, size: int) -> bool:
    """Tell whether a segment is known to have no holes, or is one."""
    return leaf is None or (leaf.data_start <= host and host + size <= leaf.data_end)


def with_holes(segments: Segments, route: Route) -> Segments | None:
    """Return segments without the holes of which the client should hear, which are zeroes then."""
    parts: list[Segment] = []
    for segment in segments:
        leaf, at, size = segment
        if leaf is None or leaf in route.solid or known(leaf, at, size):
            parts.append(segment)
            continue
        end = at + size
        runs = None if leaf in route.unsure else leaf.data_now(at, end)
        if runs is None:
            return None
        for first, last in runs:
            if at < first:
                parts.append((None, 0, first - at))
            parts.append((leaf, first, last - first))
            at = last
        if at < end:
            parts.append((None, 0, end - at))
    return parts
