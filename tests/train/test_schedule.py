"""The order of rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.corpus.sequences import TrainingRows, make_training_rows
from harness.corpus.tokens import TokenSequence
from harness.errors import CorpusError
from harness.spec.suite import Budget
from harness.spec.variant import Training
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


# Drawn over conversations


def made_rows(lengths: list[int], limit: int, **training: object) -> TrainingRows:
    """Rows of conversations of so many tokens, half a prompt and half a reply each."""
    sequences = []
    for number, length in enumerate(lengths):
        ids = np.full(length, number, dtype=np.int32)
        sequences.append(
            TokenSequence(f"c{number}", f"t{number}", ids, np.arange(length) * 2 >= length)
        )
    return make_training_rows(sequences, Training(sequence_length=limit, **training))  # type: ignore[arg-type]


def trained(rows: TrainingRows, seed: int, steps: int) -> list[int]:
    """The first conversation of each row, in training order."""
    budget = Budget(steps=steps, batch_size=1)
    order = schedule(len(rows.rows), budget, seed, rows.tokens_per_row, rows.of_conversation)
    return [int(rows.rows[row].input_ids[0]) for row in order]


LENGTHS = [20, 90, 35, 300, 12, 64, 150, 41, 70, 8, 210, 28]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [30, 80, 140, 250])
@pytest.mark.parametrize("overflow", ["cut", "drop"])
def test_the_order_is_the_same_whatever_the_length(seed: int, limit: int, overflow: str) -> None:
    whole = trained(made_rows(LENGTHS, 512), seed, steps=len(LENGTHS))
    rows = made_rows(LENGTHS, limit, overflow=overflow)
    left = len(rows.rows)
    short = trained(rows, seed, steps=2 * left)
    assert bool(rows.dropped_conversations) == (overflow == "drop" or limit < 150)
    assert short[:left] == [number for number in whole if rows.of_conversation[number]]
    assert sorted(short[left:]) == sorted(short[:left]), "the next epoch sees every row again"
    assert short[left:] != short[:left]


@pytest.mark.parametrize("seed", range(4))
def test_where_nothing_is_dropped_it_is_the_order_of_rows(seed: int) -> None:
    rows = made_rows(LENGTHS, 512)
    budget = Budget(steps=30, batch_size=2)
    both = [
        schedule(len(rows.rows), budget, seed, rows.tokens_per_row, rows_of)
        for rows_of in (None, rows.of_conversation)
    ]
    assert both[0] == both[1]


@pytest.mark.parametrize("limit", [40, 100, 320])
def test_a_packed_row_comes_where_the_first_of_its_conversations_comes(limit: int) -> None:
    rows = made_rows(LENGTHS, limit, packing=True)
    budget = Budget(steps=len(rows.rows), batch_size=1)
    order = schedule(len(rows.rows), budget, 3, rows.tokens_per_row, rows.of_conversation)
    assert sorted(order) == list(range(len(rows.rows)))
    drawn = np.random.default_rng([3, 0]).permutation(len(LENGTHS)).tolist()
    first = {row: min(drawn.index(int(i)) for i in rows.rows[row].input_ids) for row in order}
    assert [first[row] for row in order] == sorted(first.values())


def test_windows_of_one_conversation_follow_each_other() -> None:
    rows = made_rows(LENGTHS, 60, overflow="window")
    budget = Budget(steps=len(rows.rows), batch_size=1)
    order = schedule(len(rows.rows), budget, 0, rows.tokens_per_row, rows.of_conversation)
    assert sorted(order) == list(range(len(rows.rows)))
    seen = [int(rows.rows[row].input_ids[0]) for row in order]
    assert [number for number, _ in itertools.groupby(seen)] == list(dict.fromkeys(seen))
