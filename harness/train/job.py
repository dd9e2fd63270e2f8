"""Job: one training as every path is given it: model, rows, order and plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.parallel.ranks import ALONE, Ranks
from harness.spec.plan import Plan
from harness.train.collate import assistant_tokens
from harness.train.ledger import StepTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.corpus.sequences import TrainingRow
    from harness.records.validation import ValidationPoint


@dataclass(frozen=True)
class TrainJob:
    """What to train. ``order`` comes from :func:`harness.train.schedule.schedule`.

    ``model`` has its adapter attached and only the parameters to train require gradients; it is
    trained in place. ``checkpoint`` is the folder to resume from and to write to, at least
    ``checkpoint_seconds`` apart. ``truncated_tokens`` is what the sequence length cut off.
    ``validate`` takes the loss on the validation split, given the steps and tokens done so far, and
    leaves the model, its modes and the random state as they are.

    With several ``ranks`` each has a job of its own, equal but for the rank, and trains on its
    part of every step: ``order`` names the rows of a step rank by rank
    (:func:`harness.train.schedule.divided`).
    """

    model: PreTrainedModel
    rows: tuple[TrainingRow, ...]
    order: list[int]
    plan: Plan
    pad_id: int
    checkpoint: Path | None = None
    truncated_tokens: int = 0
    checkpoint_seconds: float = 0.0
    ranks: Ranks = ALONE
    validate: Callable[[int, int], ValidationPoint] | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return len(self.order) // self.plan.budget.batch_size

    def step_rows(self, step: int) -> list[TrainingRow]:
        """Rows of optimizer step ``step`` (from 0), of all ranks."""
        size = self.plan.budget.batch_size
        return [self.rows[index] for index in self.order[step * size : (step + 1) * size]]

    def step_assistant_tokens(self, step: int) -> int:
        """Tokens of a step that carry loss, of all ranks; at least 1, to divide by."""
        return max(1, sum(assistant_tokens(row) for row in self.step_rows(step)))

    def rank_order(self, step: int) -> list[int]:
        """Indices of the rows of a step that this rank trains on, in order."""
        size = self.plan.budget.batch_size // self.ranks.count
        start = step * self.plan.budget.batch_size + self.ranks.index * size
        return self.order[start : start + size]

    def micro_batches(self, step: int) -> list[list[TrainingRow]]:
        """This rank's rows of optimizer step ``step``, a list for each forward pass."""
        rows = [self.rows[index] for index in self.rank_order(step)]
        size = self.plan.training.micro_batch_size
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def step_tokens(self, *, padding: bool) -> list[StepTokens]:
        """Token counts of every step of all ranks, with or without padding in micro-batches."""
        micro = self.plan.training.micro_batch_size if padding else None
        return [StepTokens.of(self.step_rows(step), micro) for step in range(self.steps)]
