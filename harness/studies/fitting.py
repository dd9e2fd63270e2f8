"""Fitting: settings with which a budget in hours brings verdicts, computed from a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from harness import numbers
from harness.records.record import RunRecord, Score
from harness.spec.claim import Claim, RateCheck, ScoreCheck
from harness.spec.plan import Plan
from harness.spec.registry import claim_names, load_claim
from harness.spec.suite import Budget
from harness.studies.agenda import Agenda
from harness.studies.budget import HOUR, said_hours
from harness.studies.findings import Job

SEEDS = 3  # trainings a variant: with fewer, hardly any difference is shown
SPARE = 0.9  # of the hours; the rest is for runs that take longer than the one that was measured
FEWEST_STEPS = 8
FEWEST_CONVERSATIONS = 60  # paths of some fifteen trees: with fewer than eight nothing is decided
TRAINING, SCORING = ("train", "validate"), ("score_base", "score")


@dataclass(frozen=True)
class Measured:
    """What a run of a study took.

    ``fixed`` seconds do not depend on its size; ``train`` are those of training with the whole
    budget, ``score`` at most those of one held-out conversation before and after training.
    """

    plan: Plan
    fixed: float
    train: float
    score: float
    steps: int

    def seconds(self, share: float) -> float:
        """Seconds of a run with that share of the budget and of the held-out conversations."""
        conversations = self.plan.corpus.held_out_limit or 0
        return self.fixed + share * (self.train + self.score * conversations)

    def share(self, seconds: float) -> float:
        """The share with which a run takes so many seconds, at most 1."""
        whole = self.seconds(1.0) - self.fixed
        return min(1.0, (seconds - self.fixed) / whole) if whole > 0 else 1.0


def measured(agenda: Agenda) -> Measured | None:
    """The slowest of the runs that trained and ended well; None where there is none yet."""
    found = [_measured(agenda, job, run.record) for job, run in agenda.settled.items()]
    return max(
        (one for one in found if one is not None),
        key=lambda one: one.seconds(1.0),
        default=None,
    )


def _measured(agenda: Agenda, job: Job, record: RunRecord) -> Measured | None:
    training = record.training
    plan = agenda.comparison.by_label[job.arm].plan
    items = [one.n for one in record.scores if _of_conversations(one) and one.n]
    if record.status != "ok" or training is None or not items or plan.corpus.held_out_limit is None:
        return None
    train = sum(cost.seconds for cost in record.phases if cost.name in TRAINING)
    score = sum(cost.seconds for cost in record.phases if cost.name in SCORING)
    return Measured(
        plan=plan,
        fixed=max(record.all_seconds - train - score, 0.0),
        train=train / job.share,
        score=2 * score / sum(items),
        steps=round(training.steps / job.share),
    )


def _of_conversations(score: Score) -> bool:
    """Whether it is a pass of the trained form over the conversations, not over parts of them."""
    own = (score.metric, score.precision) == ("perplexity", "training")
    return own and score.task in ("held_out", "validation")


def said_fit(agenda: Agenda, found: Measured | None) -> Iterator[str]:
    """Settings with which the hours bring verdicts, or how many hours the smallest such take."""
    study = agenda.comparison.study
    if found is None or study.budget.hours is None:
        return
    claims = [load_claim(name) for name in study.claims]
    runs = _runs(agenda, claims)
    least = max(
        FEWEST_STEPS / found.steps, FEWEST_CONVERSATIONS / (found.plan.corpus.held_out_limit or 1)
    )
    share = found.share(SPARE * HOUR * study.budget.hours / runs)
    if share < least:
        hours = runs * found.seconds(min(least, 1.0)) / SPARE / HOUR
        yield (
            f"A budget of {said_hours(study.budget)} is too small for a claim on this machine: "
            f"{runs} runs of a useful size take about {numbers.number(hours, digits=2)} hours."
        )
        return
    options = " ".join(_options(found.plan, share, claims))
    each = numbers.duration(found.seconds(share))
    many = f"{len(claims)} claim{'s' if len(claims) > 1 else ''}"
    what = f"{many if claims else 'a claim of two variants'} can be judged"
    rates = "" if _tunes(claims) else " at default learning rates"
    yield (
        f"Within {said_hours(study.budget)} {what}{rates}, by {runs} runs of at most {each} each: "
        f"{options}"
    )
    if not claims and (names := _testable(agenda)):
        yield f"NAME is one of {', '.join(names)}."


def _runs(agenda: Agenda, claims: list[Claim]) -> int:
    """Runs of the claims, or of one that compares two variants, at default rates alone."""
    if not claims:
        return 2 * SEEDS
    arms = agenda.comparison.arms
    trials = agenda.comparison.study.tune.trials if _tunes(claims) else 0
    each = SEEDS + (trials + SEEDS if trials else 0)
    return sum(each if arm.trains else 1 for arm in arms)


def _tunes(claims: list[Claim]) -> bool:
    """Whether one of the claims is about tuned learning rates."""
    return any(
        isinstance(check, RateCheck) or (isinstance(check, ScoreCheck) and check.rates == "best")
        for claim in claims
        for check in claim.checks
    )


def _options(plan: Plan, share: float, claims: list[Claim]) -> Iterator[str]:
    """What is typed for that share of the budget; scores that no claim asks for are left out."""
    if not claims:
        yield "--claim NAME"
    if not _tunes(claims):
        yield "--set study.tune.trials=1"
    yield f"--set study.seeds.stop={SEEDS}"
    if share < 1:
        yield f"--set budget.{_measure(plan.budget)}={_rounded(share * _size(plan.budget))}"
        limit = plan.corpus.held_out_limit or 0
        yield f"--set corpus.held_out_limit={_rounded(share * limit)}"
    asked = {
        check.score.rpartition(" ")[0]
        for claim in claims
        for check in claim.checks
        if isinstance(check, ScoreCheck)
    }
    score = plan.score
    if score.tasks and not asked & {task.name for task in score.tasks}:
        yield "--set 'score.tasks=[]'"
    if score.forgetting and "wikitext2" not in asked:
        yield "--set score.forgetting=false"
    if score.preference and "preference" not in asked:
        yield "--set score.preference=false"
    if score.generations:
        yield "--set score.generations=0"


def _measure(budget: Budget) -> str:
    return "tokens" if budget.steps is None else "steps"


def _size(budget: Budget) -> int:
    return budget.steps if budget.steps is not None else budget.tokens or 0


def _rounded(value: float) -> int:
    """Down to two digits."""
    if value < 1:
        return 1
    step = 10 ** max(int(math.log10(value)) - 1, 0)
    return int(value // step * step)


def _testable(agenda: Agenda) -> list[str]:
    """Claims about the scores of two trained variants that the study has."""
    arms = agenda.comparison.by_label
    found = []
    for name in claim_names():
        checks = load_claim(name).checks
        if len(checks) != 1 or not isinstance(checks[0], ScoreCheck) or checks[0].conditions:
            continue
        sides = (checks[0].variant, checks[0].against)
        if not checks[0].rates and checks[0].score.startswith("held_out"):
            trained = [any(side in arms and arms[side].trains for side in one) for one in sides]
            found += [name] if all(trained) else []
    return found
