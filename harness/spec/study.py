"""Study: a question about variants, and how much may be spent on its answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from harness.spec.schema import Frozen
from harness.spec.suite import Seed
from harness.spec.variant import Name, Positive

Margin = Annotated[float, Field(gt=0, lt=1)]


class Contender(Frozen):
    """One entry of a study's variants: a name, a pattern or a file, with settings of its own."""

    variant: str = Field(description='a registered name, a pattern such as "qlora_*", or a file')
    settings: dict[str, JsonValue] = Field(
        default_factory=dict, description='laid over the file, such as "adapter.use_dora" = true'
    )


class Tune(Frozen):
    """The search that every trained variant gets alike, scored on the validation split.

    With ``method = "grid"`` the learning rates are the variant's own times powers of ``factor``.
    ``rungs`` above 1 is successive halving: all trials get a part of the budget, the best
    ``1 / keep_one_in`` of them ``keep_one_in`` times as much, and so on up to the whole budget.
    """

    trials: Annotated[int, Field(ge=1, le=99)] = Field(
        default=5, description="learning rates tried for every variant; 1: the default only"
    )
    factor: Annotated[float, Field(gt=1)] = Field(
        default=2.5, description="between neighbouring learning rates"
    )
    widenings: Annotated[int, Field(ge=0)] = Field(
        default=3, description="rates that may be added beyond an edge that came out best"
    )
    rungs: Annotated[int, Field(ge=1, le=6)] = 1
    keep_one_in: Annotated[int, Field(ge=2)] = 2
    method: Literal["grid", "tpe"] = "grid"
    seed: Seed = Field(default=1000, description="of the trials; not one of those that decide")
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.15, description="of all trees, where the suite sets no validation aside"
    )


class Seeds(Frozen):
    """How many trainings of a variant decide: seeds 0, 1, 2 and so on.

    ``stop`` is "decided" (as soon as the comparison is, between ``least`` and ``most``) or a
    number of seeds for every variant.
    """

    least: Annotated[int, Field(ge=2)] = 2
    most: Annotated[int, Field(ge=2, le=100)] = 5
    stop: Literal["decided"] | Annotated[int, Field(ge=2, le=100)] = "decided"

    @model_validator(mode="after")
    def _in_order(self) -> Seeds:
        if self.least > self.most:
            msg = f"least = {self.least} is over most = {self.most}"
            raise ValueError(msg)
        return self

    @property
    def first(self) -> int:
        """Seeds before the first look."""
        return self.least if self.stop == "decided" else self.stop

    @property
    def last(self) -> int:
        """Seeds after which no more are planned."""
        return self.most if self.stop == "decided" else self.stop


class Spending(Frozen):
    """What may be spent; null: no limit."""

    runs: Positive | None = None
    hours: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="of run time, all devices together"
    )


class Study(Frozen):
    """A question: which variants, on which suite, tuned how, until when.

    ``settings`` are laid over the suite (``"score.forgetting" = true``), ``grid`` over every
    trained variant, in all combinations (``"adapter.r" = [4, 16, 64]``).
    """

    name: Name
    description: str
    question: str
    suite: str = "quick"
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    variants: Annotated[tuple[str | Contender, ...], Field(min_length=1)]
    grid: dict[str, Annotated[tuple[JsonValue, ...], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    reference: str = Field(description="what the others are compared with, by name or label")
    claims: tuple[str, ...] = Field(
        default=(),
        description="published claims, by name or file: only the variants that they compare are "
        "run, in place of the study's own, and the claims are judged at its end",
    )
    primary: str | None = Field(
        default=None, description="the score that decides; null: the suite's, or perplexity"
    )
    margin: Margin = Field(default=0.01, description="smaller differences do not matter")
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.05, description="chance of any wrong conclusion, over all looks and variants"
    )
    together: Positive = Field(
        default=1,
        description="runs whose adapters train as one on the same base, where they can: other "
        "learning rates, seeds, ranks; their costs are then shares of what all of them took",
    )
    tune: Tune = Tune()
    seeds: Seeds = Seeds()
    budget: Spending = Spending()
