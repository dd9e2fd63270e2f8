"""Training inputs: the rows that a plan trains on, in its order, and what a path wants of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.errors import Unpredicted
from harness.records.events import Progress
from harness.spec.plan import Plan

if TYPE_CHECKING:
    from harness.corpus.sequences import TrainingRows
    from harness.train.schedule import MicroBatch
    from harness.weights.shape import ParameterCount


@dataclass(frozen=True)
class TrainingInputs:
    """The rows of a plan in the order in which it trains on them."""

    plan: Plan
    rows: TrainingRows

    @cached_property
    def order(self) -> list[int]:
        """Indices of the rows, in order."""
        from harness.train.schedule import planned_order

        return planned_order(self.plan, self.rows)

    @cached_property
    def divided(self) -> list[int]:
        """The order with the rows of every step put device by device."""
        from harness.train.schedule import divided

        return divided(self.order, self.rows.tokens_per_row, self.plan)

    @property
    def steps(self) -> int:
        """Steps of the optimizer."""
        return len(self.order) // self.plan.budget.batch_size

    @property
    def largest(self) -> MicroBatch | None:
        """The largest forward pass of training."""
        from harness.train.schedule import largest_micro_batch

        size = self.plan.training.micro_batch_size
        return largest_micro_batch(self.divided, self.rows.tokens_per_row, size)

    def settled(self, progress: Progress) -> Plan:
        """The plan with the layers that are kept, chosen for these rows."""
        from harness.forecast.memory import settle_recomputation
        from harness.weights.shape import count_plan

        if self.plan.training.gradient_checkpointing != "auto":
            return self.plan
        plan = settle_recomputation(self.plan, count_plan(self.plan), self.largest)
        progress.note(f"{plan.training.kept_layers} layers are kept, the others computed again")
        return plan

    def first_batches(self, model: Any, pad_id: int, progress: Progress) -> list[dict[str, Any]]:
        """Rows for an adapter that starts from such: the first that training will see."""
        from harness.spec.methods import reads_rows
        from harness.train.collate import first_batches

        if not reads_rows(self.plan.adapter):
            return []
        progress.note("reading training rows to start the adapter from")
        rows = [self.rows.rows[index] for index in self.order]
        return first_batches(rows, pad_id, model.device)


def expected_counts(plan: Plan) -> ParameterCount | None:
    """What a plan expects to load and train, where that is known."""
    from harness.weights.shape import count_plan

    try:
        return count_plan(plan)
    except Unpredicted:
        return None
