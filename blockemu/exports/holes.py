"""Holes in files of which NBD clients hear as they read."""

from blockemu.route import Route, Segment, Segments


def with_holes(segments: Segments, route: Route) -> Segments | None:
    """Return segments without the holes of which the client should hear, which are zeroes then."""
    parts: list[Segment] = []
    for segment in segments:
        leaf, at, size = segment
        if leaf is None:
            parts.append(segment)
            continue
        end = at + size
        if (leaf.data_start <= at and end <= leaf.data_end) or leaf in route.solid:
            parts.append(segment)
            continue
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
