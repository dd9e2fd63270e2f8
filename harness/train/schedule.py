"""Schedule: which row is trained when, the same for every variant of a suite."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.corpus.sequences import TrainingRows
from harness.errors import CorpusError
from harness.parallel.divide import equal_parts
from harness.spec.plan import Plan
from harness.spec.suite import Budget


@dataclass(frozen=True)
class MicroBatch:
    """The largest forward pass of a training: the plain path pads rows, the fast one does not."""

    longest: int  # tokens of the longest row
    tokens: int  # most tokens of all rows together

    @classmethod
    def full(cls, plan: Plan) -> MicroBatch:
        """Every row as long as the plan allows."""
        length = plan.training.sequence_length
        return cls(length, plan.training.micro_batch_size * length)


def schedule(
    row_count: int,
    budget: Budget,
    seed: int,
    tokens_per_row: Sequence[int],
    rows_of: Sequence[Sequence[int]] | None = None,
) -> list[int]:
    """Row indices in training order, ``batch_size`` of them per optimizer step.

    Every epoch is a fresh permutation drawn from ``seed`` and the epoch's number, so the order
    depends on nothing but the arguments. ``rows_of`` holds the rows of every conversation of the
    corpus, also of one that is in no row: the permutation is then drawn over conversations, and
    a row comes where the first of its conversations comes. So the order is the same for every
    sequence length, less what is dropped there. Without ``rows_of`` it is drawn over rows.

    With ``budget.steps`` the result has ``steps * batch_size`` entries; with ``budget.tokens`` it
    has the fewest whole steps whose rows hold at least that many non-padding tokens.

    Raises:
        CorpusError: there are no rows to train on.
    """
    if budget.steps == 0:
        return []
    if row_count == 0 or (budget.tokens is not None and not any(tokens_per_row)):
        raise CorpusError(
            "no rows to train on",
            hint="loosen the corpus filters or raise training.sequence_length",
        )
    endless = _epochs(row_count, seed) if rows_of is None else _epochs_of(rows_of, seed)
    if budget.steps is not None:
        return [next(endless) for _ in range(budget.steps * budget.batch_size)]
    order: list[int] = []
    seen = 0
    while seen < (budget.tokens or 0):
        step = [next(endless) for _ in range(budget.batch_size)]
        order += step
        seen += sum(int(tokens_per_row[row]) for row in step)
    return order


def planned_order(plan: Plan, rows: TrainingRows) -> list[int]:
    """Indices of the rows that ``plan`` trains on, in order."""
    seed = plan.seed if plan.order_seed is None else plan.order_seed
    rows_of = rows.of_conversation if plan.order == "conversations" else None
    return schedule(len(rows.rows), plan.budget, seed, rows.tokens_per_row, rows_of)


def divided(order: Sequence[int], tokens_per_row: Sequence[int], plan: Plan) -> list[int]:
    """``order`` with the rows of every step put device by device, where several share the plan.

    Each gets the same number of rows and about as many tokens, so that none waits for another.
    """
    if plan.training.devices == 1:
        return list(order)
    size, found = plan.budget.batch_size, []
    for start in range(0, len(order), size):
        step = order[start : start + size]
        parts = equal_parts([tokens_per_row[row] for row in step], plan.training.devices)
        found += [step[place] for part in parts for place in part]
    return found


def largest_micro_batch(
    order: Sequence[int], tokens_per_row: Sequence[int], size: int
) -> MicroBatch | None:
    """What the largest micro-batch of ``size`` rows will hold; None where nothing is trained."""
    if not order:
        return None
    lengths = [tokens_per_row[row] for row in order]
    sums = [sum(lengths[start : start + size]) for start in range(0, len(lengths), size)]
    return MicroBatch(longest=max(lengths), tokens=max(sums))


def _epochs(count: int, seed: int) -> Iterator[int]:
    for epoch in itertools.count():
        yield from _permutation(count, seed, epoch)


def _epochs_of(rows_of: Sequence[Sequence[int]], seed: int) -> Iterator[int]:
    """Each epoch's rows in the order in which their first conversations are drawn."""
    for epoch in itertools.count():
        drawn = _permutation(len(rows_of), seed, epoch)
        yield from dict.fromkeys(row for conversation in drawn for row in rows_of[conversation])


def _permutation(count: int, seed: int, epoch: int) -> list[int]:
    drawn: list[int] = np.random.default_rng([seed, epoch]).permutation(count).tolist()
    return drawn
