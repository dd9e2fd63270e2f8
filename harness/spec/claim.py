"""Claim: a published sentence with its source, and the comparisons that test it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue

from harness.spec.schema import Frozen
from harness.spec.study import Margin
from harness.spec.variant import Name

CONDITION = re.compile(r"([a-z_.\d]+) (=|!=|<=|>=) (\S+)")


def _check_condition(text: str) -> str:
    if CONDITION.fullmatch(text) is None:
        msg = f'{text!r} is no condition such as "budget.batch_size >= 64"'
        raise ValueError(msg)
    return text


Condition = Annotated[str, AfterValidator(_check_condition)]
Positive = Annotated[float, Field(gt=0)]
USUAL_MARGIN = 0.01
Names = Annotated[tuple[str, ...], Field(min_length=1)]


class Publication(Frozen):
    """Where a sentence was published."""

    title: str
    link: str = Field(description="arXiv number, or a repository with an issue or a file")
    place: str = Field(default="", description="table, figure or section")


class Setting(Frozen):
    """On what it was claimed; null: the source does not say."""

    billions: tuple[float, ...] = Field(default=(), description="of parameters, each model's")
    data: str = ""


class Number(Frozen):
    """One published number."""

    what: str
    value: float
    unit: str = ""


class PairCheck(Frozen):
    """What every kind of comparison has.

    ``variant`` and ``against`` are names of variants. Lists of equal length are pairs, of which
    the first is taken that was run on both sides; of other lists the first name that was run.
    ``conditions`` are settings that its runs must have, such as "budget.batch_size >= 64".
    """

    variant: Names
    against: Names
    conditions: tuple[Condition, ...] = ()
    unmet: str = Field(default="", description="why runs that do not meet them tell nothing")

    @property
    def choices(self) -> list[tuple[Names, Names]]:
        """Names of both sides that may be compared with each other, the wanted ones first."""
        if len(self.variant) != len(self.against):
            return [(self.variant, self.against)]
        pairs = zip(self.variant, self.against, strict=True)
        return [((own,), (other,)) for own, other in pairs]


class ScoreCheck(PairCheck):
    """The difference of two variants on one score, on the same items and seeds.

    ``says`` is what the sentence says of ``variant``: better or worse than ``against``, equal
    (within ``margin``), or reaching it (not worse by more than ``margin``).
    """

    kind: Literal["score"]
    score: str = Field(default="held_out perplexity", description="its task and metric")
    says: Literal["better", "worse", "equal", "reaches"]
    margin: Margin = Field(default=USUAL_MARGIN, description="a smaller difference does not matter")
    rates: Literal["", "default", "best"] = Field(
        default="", description="at which learning rates; empty: the best where both were tuned"
    )
    parameters: tuple[Positive, Positive] | None = Field(
        default=None,
        description="lowest and highest ratio of trained parameters that test the sentence",
    )
    lost: bool = Field(
        default=False,
        description="tested only where training made the score of one side worse, at least",
    )
    chance: float | None = Field(
        default=None,
        description="what guessing scores; tested only where one side is surely above it",
    )


class FormCheck(Frozen):
    """The difference of a variant in another form (merged, say) from itself as trained."""

    kind: Literal["form"]
    variant: Names
    form: str
    score: str = "held_out perplexity"
    says: Literal["better", "worse", "equal", "reaches"]
    margin: Margin = USUAL_MARGIN
    conditions: tuple[Condition, ...] = ()


class CostCheck(PairCheck):
    """The ratio of a cost of ``variant`` to that of ``against``, which lies in ``ratio``."""

    kind: Literal["cost"]
    cost: Literal["memory", "weights", "time", "throughput", "energy"]
    ratio: tuple[float, float] = Field(description="lowest and highest that fit the sentence")


class BitsCheck(PairCheck):
    """Stored bits of a quantized parameter: those of ``variant`` minus those of ``against``."""

    kind: Literal["bits"]
    difference: tuple[float, float] = Field(description="lowest and highest that fit the sentence")


class RateCheck(PairCheck):
    """The ratio of the best learning rates, found by the same search."""

    kind: Literal["rate"]
    ratio: tuple[float, float] = Field(description="lowest and highest that fit the sentence")


class SpeedCheck(PairCheck):
    """How many times the steps ``against`` needs to come as low as it ends, by the curves."""

    kind: Literal["speed"]
    ratio: tuple[float, float] = Field(description="lowest and highest that fit the sentence")


class BeyondCheck(Frozen):
    """What this harness cannot test, and why."""

    kind: Literal["beyond"]
    why: str


AnyCheck = Annotated[
    ScoreCheck | FormCheck | CostCheck | BitsCheck | RateCheck | SpeedCheck | BeyondCheck,
    Field(discriminator="kind"),
]


class Advice(Frozen):
    """What to do where a claim holds, and where it does not."""

    reproduced: str = ""
    contradicted: str = ""


class Claim(Frozen):
    """A published sentence, its source and numbers, and what would show it to be true or false.

    All ``checks`` must come out for the claim to be reproduced; one that fails contradicts it.
    """

    name: Name
    sentence: str
    source: Publication
    claimed: Setting = Setting()
    published: tuple[Number, ...] = ()
    checks: Annotated[tuple[AnyCheck, ...], Field(min_length=1)]
    can: bool = Field(
        default=False,
        description="it says what can happen: runs in which it does not leave it undecided",
    )
    note: str = Field(default="", description="what a reader of the verdict must know")
    advice: Advice = Field(default=Advice(), description="what follows from a verdict, in practice")


def holds(condition: str, settings: Mapping[str, Any]) -> bool:
    """Whether settings by dotted key meet a condition; an unknown key does not.

    Args:
        condition: such as "budget.batch_size >= 64" or "training.packing = true".
        settings: a plan, flattened.
    """
    found = CONDITION.fullmatch(condition)
    if found is None:
        return False
    key, sign, written = found.groups()
    value: JsonValue = settings.get(key)
    if sign in ("=", "!="):
        return (str(value).lower() == written.strip('"').lower()) == (sign == "=")
    if not isinstance(value, int | float):
        return False
    return value <= float(written) if sign == "<=" else value >= float(written)
