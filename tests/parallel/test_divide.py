"""Work is divided evenly, whole, and always the same way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.parallel.divide import equal_parts, spans
from harness.score.divided import costs, with_prefixes
from harness.score.prefixes import Extend, IntArray, PrefixPasses, Tree

COSTS = st.lists(st.integers(1, 5000), max_size=40)


@given(COSTS, st.integers(1, 5))
def test_equal_parts_hold_everything_once(found: list[int], count: int) -> None:
    found = found[: len(found) // count * count]
    parts = equal_parts(found, count)
    assert sorted(one for part in parts for one in part) == list(range(len(found)))
    assert {len(part) for part in parts} <= {len(found) // count}
    assert parts == equal_parts(found, count)


def test_tokens_are_even_where_rows_in_order_are_not() -> None:
    tokens = [900, 900, 10, 20, 800, 100, 700, 30]
    parts = equal_parts(tokens, 2)
    sums = [sum(tokens[one] for one in part) for part in parts]
    assert sums == [1730, 1730]
    assert sum(tokens[:4]) != sum(tokens[4:])


def test_what_cannot_be_divided_evenly_is_refused() -> None:
    with pytest.raises(ValueError, match="3 things in 2 parts"):
        equal_parts([1, 2, 3], 2)


@given(COSTS, st.integers(1, 5))
def test_spans_are_neighbours_and_about_even(found: list[int], count: int) -> None:
    parts = spans(found, count)
    assert len(parts) == count
    assert [one for part in parts for one in part] == list(range(len(found)))
    share = sum(found) / count
    for part in parts:
        assert sum(found[one] for one in part) <= share + max(found, default=0)


def sequences(count: int, seed: int) -> list[IntArray]:
    """Distinct sequences that branch off each other now and then, sorted."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 3, 400)]
    for _ in range(count - 1):
        kept = rows[rng.integers(len(rows))][: rng.integers(1, 300)]
        rows.append(np.concatenate([kept, rng.integers(0, 3, rng.integers(5, 200))]))
    return sorted({row.tobytes(): row for row in rows}.values(), key=tuple)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [2, 3])
def test_each_device_fills_the_cache_that_its_passes_read(seed: int, count: int) -> None:
    """Replays the passes of each device and checks every cached token against the sequence."""
    inputs = sequences(40, seed)
    every = list(PrefixPasses(inputs, [len(row) - 1 for row in inputs], budget=300).steps())
    assert any(isinstance(step, Extend) for step in every)
    asked = [index for index, step in enumerate(every) if not isinstance(step, Extend)]
    answered: list[int] = []
    for part in spans(costs(every, inputs), count):
        cached = np.empty(0, np.int64)
        steps = with_prefixes(every, [asked[place] for place in part])
        for step in steps:
            if isinstance(step, Extend):
                cached = np.concatenate([cached[: step.keep], step.tokens])
                assert len(cached) == step.keep + len(step.tokens)
                continue
            answered += step.members
            if isinstance(step, Tree):
                for member in step.members:
                    assert np.array_equal(cached[: step.base], inputs[member][: step.base])
    assert sorted(answered) == list(range(len(inputs)))
