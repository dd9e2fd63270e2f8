"""The order of rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import CorpusError
from harness.spec.suite import Budget
from harness.train.schedule import MicroBatch, largest_micro_batch, schedule


@given(
    rows=st.integers(1, 40), steps=st.integers(0, 30), batch=st.integers(1, 5), seed=st.integers(0)
)
def test_every_epoch_sees_every_row_once(rows: int, steps: int, batch: int, seed: int) -> None:
    order = schedule(rows, Budget(steps=steps, batch_size=batch), seed, [1] * rows)

    assert len(order) == steps * batch
    for start in range(0, len(order) - rows + 1, rows):
        assert sorted(order[start : start + rows]) == list(range(rows))


def test_epochs_and_seeds_differ() -> None:
    budget = Budget(steps=40, batch_size=1)
    first = schedule(20, budget, 0, [1] * 20)

    assert first[:20] != first[20:]
    assert first != schedule(20, budget, 1, [1] * 20)
    assert first == schedule(20, budget, 0, [9] * 20)


def test_a_token_budget_ends_with_the_first_whole_step_that_reaches_it() -> None:
    order = schedule(10, Budget(tokens=95, batch_size=2), 0, [10] * 10)

    assert len(order) == 10


def test_no_rows_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(CorpusError, match="no rows"):
        schedule(0, Budget(steps=1), 0, [])


def test_the_largest_micro_batch_is_found_by_tokens_and_by_its_longest_row() -> None:
    tokens = [9, 1, 6, 6, 50]
    assert largest_micro_batch([0, 1, 2, 3], tokens, 2) == MicroBatch(longest=9, tokens=12)
    assert largest_micro_batch([], tokens, 2) is None
