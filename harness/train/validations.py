"""Validations: which weights are kept by validation losses, and when training stops."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from harness.records.validation import ValidationResult
from harness.train.allocation import Allocation
from harness.train.checkpoint import TrainingState, restore_weights, trainable_weights
from harness.train.job import TrainJob
from harness.train.ledger import Ledger
from harness.weights.trained_shards import own_part


class Validations:
    """The validations of one training; without a validation split it only counts steps."""

    def __init__(
        self,
        job: TrainJob,
        ledger: Ledger,
        saved: TrainingState | None,
        allocation: Allocation | None = None,
    ) -> None:
        """Go on from ``saved``. ``allocation`` is the adapter's, whose ranks belong to weights."""
        self._job = job
        self._ledger = ledger
        self._allocation = allocation
        self._points = list(saved.validation) if saved is not None else []
        self._best: dict[str, Any] = dict(saved.best) if saved is not None else {}
        self._best_ranks = dict(saved.best_ranks) if saved is not None else {}

    @property
    def over(self) -> bool:
        """Whether training ends here: all steps are done, or patience is at its end."""
        return self._ledger.done == self._job.steps or self._impatient()

    def _impatient(self) -> bool:
        patience = self._job.plan.validation.patience
        if patience is None or not self._points:
            return False
        losses = [point.loss for point in self._points]
        return len(losses) - 1 - losses.index(min(losses)) >= patience

    def take(self) -> None:
        """Validate if it is time to; call it before the first step and after each."""
        step = self._ledger.done
        validate, asked = self._job.validate, self._job.plan.validation
        if validate is None or not asked.due(step, self._job.steps):
            return
        if self._points and self._points[-1].step >= step:  # an earlier attempt has
            return
        lowest = min((point.loss for point in self._points), default=float("inf"))
        point = validate(step, self._ledger.tokens)
        # devices may round differently, and all must come to the same decision
        point = point.model_copy(update={"loss": self._job.ranks.hand_out(point.loss)})
        self._points.append(point)
        if asked.keep == "best" and point.loss < lowest:
            self._keep()
        self._ledger.start_step()

    def _keep(self) -> None:
        """Copy this device's weights to the host; into the earlier copy where there is one."""
        for name, weight in trainable_weights(self._job.model).items():
            if name in self._best:
                self._best[name].copy_(own_part(weight))
            else:
                self._best[name] = own_part(weight).to("cpu", copy=True)
        if self._allocation is not None:
            self._best_ranks = deepcopy(self._allocation.ranks)

    def state(self) -> dict[str, Any]:
        """The fields of a TrainingState that are about validation."""
        return {
            "validation": tuple(self._points),
            "best": self._best,
            "best_ranks": self._best_ranks,
        }

    def finish(self) -> ValidationResult | None:
        """Put the best weights in place, if those are to be kept; None where nothing was taken."""
        if not self._points:
            return None
        kept = self._ledger.done
        if self._best:
            restore_weights(self._job.model, self._best)
            if self._allocation is not None:
                self._allocation.ranks = self._best_ranks
            kept = min(self._points, key=lambda point: point.loss).step
        return ValidationResult(
            points=tuple(self._points),
            kept_step=kept,
            stopped="budget" if self._ledger.done == self._job.steps else "patience",
        )
