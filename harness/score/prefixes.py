"""Prefixes: in which forward passes a set of token sequences is computed, each prefix once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
MIN_SHARED = 64  # a shorter shared prefix costs more in calls than it saves in tokens
DISTINCT = 0.9  # share of tokens that differ above which sequences are computed side by side


@dataclass(frozen=True)
class Extend:
    """Keep ``keep`` tokens of the cached path, then run ``tokens`` [n] onto it."""

    keep: int
    tokens: IntArray


@dataclass(frozen=True)
class Tree:
    """Run the tokens of ``members`` after their first ``base`` as one tree over the cached path."""

    base: int
    members: tuple[int, ...]


@dataclass(frozen=True)
class SideBySide:
    """Run ``members`` side by side, padded on the right, without a cache."""

    members: tuple[int, ...]


@dataclass(frozen=True)
class Idle:
    """Run a token that nobody asks for, because other devices need this one's part of a model."""


@dataclass
class PrefixPasses:
    """Passes over ``inputs`` (sorted, distinct) that need hidden states from ``first[i]`` on.

    Inputs are divided at the branches of their prefix tree until a part holds at most ``budget``
    tokens; a prefix that several parts share is run once and stays cached while they are run.
    """

    inputs: Sequence[IntArray]
    first: Sequence[int]
    budget: int
    _common: list[int] = field(init=False)

    def __post_init__(self) -> None:
        """Measure what each input shares with the one before it."""
        self._common = [0] + [
            common_prefix(a, b) for a, b in zip(self.inputs, self.inputs[1:], strict=False)
        ]

    def steps(self) -> Iterator[Extend | Tree | SideBySide]:
        """Every pass in order; side-by-side rows come last, longest first."""
        apart: list[int] = []
        parts = [(0, len(self.inputs), 0)] if len(self.inputs) else []
        while parts:
            low, high, base = parts.pop()
            if high - low == 1 or self._tokens(low, high, base) <= self.budget:
                if self._is_apart(low, high, base):
                    apart.extend(range(low, high))
                else:
                    yield Tree(base, tuple(range(low, high)))
                continue
            shared = self._shared(low, high)
            if shared - base >= MIN_SHARED:
                yield Extend(base, self.inputs[low][base:shared])
                base = shared
            parts.extend((*part, base) for part in reversed(list(self._divide(low, high, base))))
        yield from self.side_by_side(apart)

    def _tokens(self, low: int, high: int, base: int) -> int:
        """Distinct prefix-tree tokens of a part beyond ``base``."""
        return sum(
            len(self.inputs[i]) - max(base, self._common[i] if i > low else base)
            for i in range(low, high)
        )

    def _shared(self, low: int, high: int) -> int:
        """Tokens all inputs share before any hidden state is needed."""
        return min(*self._common[low + 1 : high], *self.first[low:high])

    def _divide(self, low: int, high: int, base: int) -> Iterator[tuple[int, int]]:
        """Runs of neighbouring branches that fit the budget together, else single branches."""
        branch = min(self._common[low + 1 : high])
        edges = [i for i in range(low + 1, high) if self._common[i] == branch] + [high]
        start, end = low, edges[0]
        for edge in edges[1:]:
            if self._tokens(start, edge, base) > self.budget:
                yield start, end
                start = end
            end = edge
        yield start, end

    def _is_apart(self, low: int, high: int, base: int) -> bool:
        """Whether a tree would save little over plain rows."""
        if base:
            return high - low == 1 and len(self.inputs[low]) - base > self.budget
        whole = sum(len(self.inputs[i]) for i in range(low, high))
        return self._tokens(low, high, 0) >= DISTINCT * whole

    def side_by_side(self, members: Iterable[int]) -> Iterator[SideBySide]:
        """Members in padded batches within the budget, longest first."""
        members = sorted(members, key=lambda i: -len(self.inputs[i]))
        start = 0
        while start < len(members):
            fit = max(1, self.budget // len(self.inputs[members[start]]))
            yield SideBySide(tuple(members[start : start + fit]))
            start += fit


def common_prefix(left: IntArray, right: IntArray) -> int:
    """How many leading tokens two sequences share."""
    size = min(len(left), len(right))
    differ = np.flatnonzero(left[:size] != right[:size])
    return int(differ[0]) if differ.size else size


def foreign_tokens(
    steps: Iterable[Extend | Tree | SideBySide], inputs: Sequence[IntArray]
) -> Iterator[tuple[int, int]]:
    """Of each member of a tree, the tokens of other branches that lie before it; and the member."""
    for step in steps:
        if not isinstance(step, Tree):
            continue
        size, previous = step.base, None
        for member in step.members:
            row = inputs[member]
            shared = step.base if previous is None else common_prefix(previous, row)
            yield size - shared, member
            size, previous = size + len(row) - shared, row


@dataclass(frozen=True)
class Layout:
    """A tree laid flat.

    ``tokens`` and ``depths`` [n]; ``sees`` [n, n] true where a token attends to another;
    ``paths[member]`` holds the flat index of each token of that member beyond the base.
    """

    tokens: IntArray
    depths: IntArray
    sees: npt.NDArray[np.bool_]
    paths: dict[int, IntArray]


def lay_out(inputs: Sequence[IntArray], tree: Tree) -> Layout:
    """Lay the members of a tree flat, each distinct prefix once."""
    tokens: list[IntArray] = []
    depths: list[IntArray] = []
    paths: dict[int, IntArray] = {}
    blocks: list[tuple[int, IntArray]] = []
    size, path = 0, np.empty(0, np.int64)
    previous: IntArray | None = None
    for member in tree.members:
        row = inputs[member]
        shared = tree.base if previous is None else common_prefix(previous, row)
        kept = path[: shared - tree.base]
        new = np.arange(size, size + len(row) - shared)
        path = np.concatenate([kept, new])
        paths[member], previous = path, row
        tokens.append(row[shared:])
        depths.append(np.arange(shared, len(row)))
        blocks.append((size, path))
        size += len(new)
    sees = np.zeros((size, size), np.bool_)
    for start, path in blocks:
        count = int((path >= start).sum())
        rows = slice(start, start + count)
        sees[rows, path[: len(path) - count]] = True
        sees[rows, rows] = np.tril(np.ones((count, count), np.bool_))
    return Layout(np.concatenate(tokens), np.concatenate(depths), sees, paths)


def distinct_rows(rows: Iterable[IntArray]) -> tuple[list[IntArray], list[list[int]]]:
    """Distinct inputs in lexicographic order, and which queries use each."""
    found: dict[bytes, list[int]] = {}
    kept: dict[bytes, IntArray] = {}
    for index, row in enumerate(rows):
        key = row.astype(">u4").tobytes()
        found.setdefault(key, []).append(index)
        kept.setdefault(key, row)
    order = sorted(found)
    return [kept[key] for key in order], [found[key] for key in order]
