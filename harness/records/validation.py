"""ValidationResult: the loss on the validation split while a variant was trained."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from harness.spec.schema import Frozen

if TYPE_CHECKING:
    from harness.records.record import RunRecord

Count = Annotated[int, Field(ge=0)]


class ValidationPoint(Frozen):
    """One validation: mean loss (nats) per assistant token of the validation conversations."""

    step: Count = Field(description="optimizer steps done before it")
    tokens: Count = Field(description="non-padding tokens trained on before it")
    loss: float
    seconds: float = Field(description="in no training step, nor in its tokens per second")


class ValidationResult(Frozen):
    """All validations of one training, and what followed from them."""

    points: tuple[ValidationPoint, ...]
    kept_step: Count = Field(description="steps after which the weights were scored and saved")
    stopped: Literal["budget", "patience"] = Field(description="why training ended")

    @property
    def lowest(self) -> ValidationPoint:
        """The point of the lowest loss, the first of several."""
        return min(self.points, key=lambda point: point.loss)


def is_trial(record: RunRecord) -> bool:
    """Whether the run was made to choose by: it was scored on the validation split alone."""
    return record.plan.score.split == "validation"


def validation_loss(record: RunRecord) -> float:
    """Nats a token on the validation split; infinite where the run did not end well.

    Raises:
        ValueError: the run was scored on the held-out split, by which nothing may be chosen.
    """
    if not is_trial(record) or record.score("held_out", "perplexity"):
        msg = f"{record.plan.run_name} was scored on the held-out split: not a trial"
        raise ValueError(msg)
    found = record.score("validation", "perplexity") if record.status == "ok" else None
    return math.inf if found is None else math.log(found.value)
