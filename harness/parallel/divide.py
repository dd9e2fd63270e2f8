"""Divide: work for several devices, so that all of them are done at about the same time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def equal_parts(costs: Sequence[int], count: int) -> list[list[int]]:
    """Indices of ``costs`` in ``count`` parts of equally many, each in order, of about equal sums.

    The largest comes first, into the part with the smallest sum that still has room; then pairs
    of the largest and smallest part are exchanged while that brings them nearer. The result
    depends on nothing but the arguments.

    Raises:
        ValueError: the number of costs is no multiple of ``count``.
    """
    room, left = divmod(len(costs), count)
    if left:
        msg = f"{len(costs)} things in {count} parts of equally many"
        raise ValueError(msg)
    parts: list[list[int]] = [[] for _ in range(count)]
    for index in sorted(range(len(costs)), key=lambda one: -costs[one]):
        open_parts = [part for part in parts if len(part) < room]
        min(open_parts, key=lambda part: sum(costs[one] for one in part)).append(index)
    while _exchange(costs, parts):
        pass
    return [sorted(part) for part in parts]


def _exchange(costs: Sequence[int], parts: list[list[int]]) -> bool:
    """Exchange one pair between the largest and the smallest part, if that brings them nearer."""
    sums = [sum(costs[one] for one in part) for part in parts]
    high, low = sums.index(max(sums)), sums.index(min(sums))
    gap = sums[high] - sums[low]
    best: tuple[int, int, int] | None = None
    for here, large in enumerate(parts[high]):
        for there, small in enumerate(parts[low]):
            after = abs(gap - 2 * (costs[large] - costs[small]))
            if after < (gap if best is None else best[0]):
                best = (after, here, there)
    if best is None:
        return False
    _, here, there = best
    parts[high][here], parts[low][there] = parts[low][there], parts[high][here]
    return True


def spans(costs: Sequence[int], count: int) -> list[range]:
    """``costs`` cut into ``count`` neighbouring spans of about equal sums, some maybe empty."""
    total, done, edges = sum(costs), 0, [0]
    for index, cost in enumerate(costs):
        while len(edges) < count and done + cost / 2 > total * len(edges) / count:
            edges.append(index)
        done += cost
    edges += [len(costs)] * (count + 1 - len(edges))
    return [range(low, high) for low, high in pairwise(edges)]
