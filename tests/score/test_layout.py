"""Layout: a tree of sequences laid flat, so that each token sees its own beginnings only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.score.prefixes import (
    MIN_SHARED,
    Extend,
    IntArray,
    PrefixPasses,
    SideBySide,
    Tree,
    common_prefix,
    distinct_rows,
    lay_out,
)


def row(*tokens: int) -> IntArray:
    return np.array(tokens, dtype=np.int64)


def seen(layout: object, place: int) -> list[int]:
    """The tokens that the token at ``place`` attends to, in order."""
    return layout.tokens[layout.sees[place]].tolist()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("left", "right", "shared"),
    [
        (row(), row(), 0),
        (row(1), row(), 0),
        (row(1, 2, 3), row(1, 2, 3), 3),
        (row(1, 2, 3), row(1, 2), 2),
        (row(1, 2, 3), row(1, 9, 3), 1),
        (row(5), row(6), 0),
    ],
)
def test_two_sequences_share_their_leading_tokens(
    left: IntArray, right: IntArray, shared: int
) -> None:
    assert common_prefix(left, right) == common_prefix(right, left) == shared


def test_equal_rows_are_computed_once_and_remember_who_asked() -> None:
    rows, asked = distinct_rows([row(2, 1), row(1), row(2, 1), row(1, 0), row(70000)])
    assert [one.tolist() for one in rows] == [[1], [1, 0], [2, 1], [70000]]
    assert asked == [[1], [3], [0, 2], [4]]


def test_a_shared_beginning_stands_once() -> None:
    inputs = [row(1, 2, 3), row(1, 2, 4, 5), row(1, 6)]
    layout = lay_out(inputs, Tree(0, (0, 1, 2)))
    assert layout.tokens.tolist() == [1, 2, 3, 4, 5, 6]
    assert layout.depths.tolist() == [0, 1, 2, 2, 3, 1]
    for member, wanted in enumerate(inputs):
        path = layout.paths[member]
        assert layout.tokens[path].tolist() == wanted.tolist()
        assert seen(layout, path[-1]) == wanted.tolist(), "its own path, and nothing beside it"


def test_tokens_before_the_base_are_in_the_cache_and_not_in_the_tree() -> None:
    inputs = [row(1, 2, 3), row(1, 2, 4)]
    layout = lay_out(inputs, Tree(2, (0, 1)))
    assert layout.tokens.tolist() == [3, 4]
    assert layout.depths.tolist() == [2, 2], "they stand where they stood"
    assert layout.sees.tolist() == [[True, False], [False, True]]


def test_a_sequence_that_begins_another_is_a_part_of_its_path() -> None:
    layout = lay_out([row(1, 2), row(1, 2, 3)], Tree(0, (0, 1)))
    assert layout.tokens.tolist() == [1, 2, 3]
    assert layout.paths[0].tolist() == [0, 1]
    assert layout.paths[1].tolist() == [0, 1, 2]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=7), min_size=1, max_size=9))
def test_whatever_the_tree_each_token_sees_what_it_would_alone(texts: list[list[int]]) -> None:
    rows, _ = distinct_rows([np.array(text, dtype=np.int64) for text in texts])
    layout = lay_out(rows, Tree(0, tuple(range(len(rows)))))
    for member, wanted in enumerate(rows):
        path = layout.paths[member]
        for place, flat in enumerate(path):
            assert seen(layout, flat) == wanted[: place + 1].tolist()
            assert layout.depths[flat] == place
    prefixes = {tuple(one[: end + 1]) for one in rows for end in range(len(one))}
    assert len(layout.tokens) == len(prefixes), "each distinct beginning once"


def steps(inputs: list[IntArray], first: list[int], budget: int) -> list[object]:
    return list(PrefixPasses(inputs, first, budget).steps())


def test_nothing_to_compute_takes_no_pass() -> None:
    assert steps([], [], 100) == []


def test_what_fits_is_one_tree() -> None:
    stem = np.arange(50, dtype=np.int64)
    inputs = [np.append(stem, end) for end in (60, 61, 62)]
    (found,) = steps(inputs, [49] * 3, 100)
    assert isinstance(found, Tree)
    assert found.members == (0, 1, 2)


def test_a_long_shared_beginning_is_kept_while_its_branches_are_run() -> None:
    stem = np.arange(MIN_SHARED + 10, dtype=np.int64)
    inputs = [np.concatenate([stem, np.full(40, end)]) for end in (200, 201, 202)]
    kept, *trees = steps(inputs, [len(stem)] * 3, 50)
    assert isinstance(kept, Extend)
    assert (kept.keep, kept.tokens.tolist()) == (0, stem.tolist())
    assert all(isinstance(tree, Tree) and tree.base == len(stem) for tree in trees)
    members = [member for tree in trees for member in tree.members]  # type: ignore[attr-defined]
    assert sorted(members) == [0, 1, 2]


def test_states_that_are_asked_for_are_not_lost_in_the_cache() -> None:
    """A prefix is cached up to the first token whose hidden state somebody needs."""
    stem = np.arange(MIN_SHARED + 40, dtype=np.int64)
    inputs = [np.concatenate([stem, np.full(40, end)]) for end in (200, 201)]
    kept, *_ = steps(inputs, [MIN_SHARED + 5, MIN_SHARED + 30], 50)
    assert isinstance(kept, Extend)
    assert len(kept.tokens) == MIN_SHARED + 5


def test_rows_that_share_nothing_stand_side_by_side_longest_first() -> None:
    inputs = sorted(
        (np.arange(start, start + size, dtype=np.int64) for start, size in
         ((100, 30), (200, 50), (300, 40), (400, 10))),
        key=lambda one: int(one[0]),
    )  # fmt: skip
    found = steps(inputs, [0] * 4, 100)
    assert all(isinstance(one, SideBySide) for one in found)
    order = [member for one in found for member in one.members]  # type: ignore[attr-defined]
    assert [len(inputs[member]) for member in order] == [50, 40, 30, 10]
    for one in found:
        sizes = [len(inputs[member]) for member in one.members]  # type: ignore[attr-defined]
        assert max(sizes) * len(sizes) <= 100 or len(sizes) == 1, "padding counts"


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12),
    st.integers(1, 40),
)
def test_every_sequence_is_run_exactly_once(texts: list[list[int]], budget: int) -> None:
    rows, _ = distinct_rows([np.array(text, dtype=np.int64) for text in texts])
    found = steps(rows, [0] * len(rows), budget)
    run = [m for one in found if not isinstance(one, Extend) for m in one.members]  # type: ignore[attr-defined]
    assert sorted(run) == list(range(len(rows)))
