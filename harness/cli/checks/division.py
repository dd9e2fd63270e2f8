"""Division: how few conversations can be divided so that a run has what it asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.spec.suite import CorpusSpec

if TYPE_CHECKING:
    from harness.corpus.corpus import Corpus
    from harness.spec.plan import Plan

STEP = 5  # hundredths
LARGEST = 90
CHANGED = ("held_out_fraction", "validation_fraction", "held_out_limit")
Check = Callable[[CorpusSpec, "Sequence[Plan]"], "Corpus"]


def advise(spec: CorpusSpec, plans: Sequence[Plan], check: Check) -> str | None:
    """What to set so that ``check`` passes, each setting tried before it is named.

    None where no division of these conversations passes, with the suite's tasks or without.
    """
    ways = [_way(spec, plans, check, "")]
    if any(plan.score.tasks for plan in plans):
        score = {"tasks": ()}
        bare = [
            plan.model_copy(update={"score": plan.score.model_copy(update=score)}) for plan in plans
        ]
        ways.append(_way(spec, bare, check, "--set score.tasks=none "))
    found = [way for way in ways if way]
    return ", or ".join([*found, "more data"]) if found else None


def _way(spec: CorpusSpec, plans: Sequence[Plan], check: Check, start: str) -> str:
    for tried in _divisions(spec, plans):
        with suppress(HarnessError):
            corpus = check(tried, plans)
            settings = " ".join(
                f"--set corpus.{key}={_plain(getattr(tried, key))}"
                for key in CHANGED
                if getattr(tried, key) != getattr(spec, key)
            )
            return f"{start}{settings}".strip() + f" ({len(corpus.train)} are left to train on)"
    return ""


def _plain(value: float | None) -> str:
    """A setting as it is typed."""
    return "none" if value is None else f"{value:g}"


def _divisions(spec: CorpusSpec, plans: Sequence[Plan]) -> Iterator[CorpusSpec]:
    """The suite's own division, then larger and larger scored sides."""
    own, given = spec.held_out_fraction, spec.validation_fraction
    validates = any(plan.validation.every and plan.trains for plan in plans)
    shares = [number / 100 for number in range(STEP, LARGEST + 1, STEP)]
    asides = [given, *(share for share in shares if validates and share > given)]
    for limit in dict.fromkeys((spec.held_out_limit, None)):
        for held in [own, *(share for share in shares if share > own)]:
            for aside in asides:
                if held + aside < 1:
                    values = (held, aside, limit)
                    yield spec.model_copy(update=dict(zip(CHANGED, values, strict=True)))
