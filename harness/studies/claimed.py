"""Claimed: a study limited to the variants that published claims compare, and their verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from harness.errors import UserError
from harness.records.record import RunRecord
from harness.records.store import StoredRun
from harness.report.claims.judge import Judgement, judge
from harness.report.claims.rates import FOR_CURVES
from harness.report.pairing import ScoreKey
from harness.report.settings import flatten
from harness.spec.claim import (
    AnyCheck,
    BeyondCheck,
    Claim,
    FormCheck,
    PairCheck,
    RateCheck,
    ScoreCheck,
    holds,
)
from harness.spec.derived_names import derived_name
from harness.spec.overrides import parse_settings
from harness.spec.plan import Plan
from harness.spec.registry import load_claim
from harness.spec.storage import read_json
from harness.spec.study import Contender, Study
from harness.studies.agenda import Agenda
from harness.studies.arms import StudyArms, setting_line

OF_FORGETTING = "wikitext2"


def limited(study: Study) -> Study:
    """``study`` with the variants that its claims compare, where it names any.

    Of several pairs in a claim, that of which the study has most itself is taken, and of several
    names the first that it has. The reference stays where a claim compares it; else it is the
    variant that most of them compare.

    Raises:
        UserError: no claim of that name, or one that no run can test.
    """
    if not study.claims:
        return study
    own = dict(_own(study))
    pairs = [_pair(check, claim, own) for claim in _claims(study) for check in claim.checks]
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    if len(names) == 1:
        raise UserError(
            f"the claims compare {names[0]} with itself alone, which is no study",
            where=f"--claim {', '.join(study.claims)}",
            hint=f"run --variant {names[0]}, then claims FOLDER",
        )
    changes = {
        "variants": tuple(own.get(name) or _spelled(name) for name in names),
        "reference": study.reference if study.reference in names else _usual(pairs),
        "grid": {},
        "question": f"Does it hold here? {'; '.join(one.sentence for one in _claims(study))}.",
    }
    return study.model_copy(update=changes)


def _usual(pairs: Sequence[Sequence[str]]) -> str:
    """What most pairs hold; of equals what more of them compare with."""
    held = Counter(name for pair in pairs for name in dict.fromkeys(pair))
    against = Counter(pair[-1] for pair in pairs)
    return max(held, key=lambda name: (held[name], against[name]))


def _claims(study: Study) -> list[Claim]:
    return [load_claim(name) for name in study.claims]


def _own(study: Study) -> Iterator[tuple[str, str | Contender]]:
    """The study's own entries by the names that their runs have."""
    for entry in study.variants:
        if isinstance(entry, str):
            yield derived_name(entry, {}), entry
        else:
            lines = [setting_line(key, value) for key, value in entry.settings.items()]
            yield derived_name(entry.variant, parse_settings(lines)[0]), entry


def _pair(check: AnyCheck, claim: Claim, own: dict[str, str | Contender]) -> list[str]:
    """Names of the variants that a check compares."""
    if isinstance(check, BeyondCheck):
        raise UserError(f"no run can test {claim.name}: {check.why}", where="--claim")
    choices = check.choices if isinstance(check, PairCheck) else [(check.variant,)]
    sides = max(choices, key=lambda names_of: sum(not own.keys().isdisjoint(n) for n in names_of))
    return [next((name for name in names if name in own), names[0]) for names in sides]


def _spelled(name: str) -> Contender | str:
    """``lora_bf16+adapter.r=1`` as a variant with settings."""
    variant, *changes = name.split("+")
    if not changes:
        return variant
    settings = flatten(parse_settings(changes)[0])
    return Contender(variant=variant, settings=settings)


def check_claims(comparison: StudyArms) -> None:
    """Refuse a study whose plans lack what its claims are judged by, before anything is run.

    Raises:
        UserError: which claims, and what they need.
    """
    found = [
        f"{claim.name}: {lack}"
        for claim in _claims(comparison.study)
        for lack in dict.fromkeys(_lacks(claim, comparison))
    ]
    if found:
        raise UserError(
            f"these runs cannot decide {'; '.join(found)}",
            where=f"study {comparison.study.name}",
            hint="leave that claim out, or set what it needs",
        )


def _lacks(claim: Claim, comparison: StudyArms) -> Iterator[str]:
    """What the plans of a study would need for each check of a claim."""
    tune = comparison.study.tune
    for check in claim.checks:
        if isinstance(check, BeyondCheck):
            continue
        plans = _plans(check, comparison)
        for condition in check.conditions:
            if not all(holds(condition, flatten(p.model_dump(mode="json"))) for p in plans):
                yield f"it asks for {condition}"
        if isinstance(check, RateCheck) and tune.trials < FOR_CURVES:
            yield f"it asks for study.tune.trials >= {FOR_CURVES}"
        if isinstance(check, ScoreCheck):
            if check.rates == "best" and tune.trials == 1:
                yield "it asks for tuned learning rates, study.tune.trials >= 3"
            if not all(_takes(plan, ScoreKey.named(check.score).task) for plan in plans):
                yield f"its score, {check.score}, is not taken"
        if isinstance(check, FormCheck) and not all(check.form in p.score.forms for p in plans):
            yield f'it asks for score.forms = ["training", "{check.form}"]'


def _plans(check: PairCheck | FormCheck, comparison: StudyArms) -> list[Plan]:
    names = (*check.variant, *(check.against if isinstance(check, PairCheck) else ()))
    return [comparison.by_label[name].plan for name in names if name in comparison.by_label]


def _takes(plan: Plan, task: str) -> bool:
    """Whether the runs of a plan take scores of a task."""
    score = plan.score
    if task == OF_FORGETTING and score.forgetting:
        return True
    asked = ("held_out", *(["preference"] if score.preference else []))
    return task in asked or task in [one.name for one in score.tasks]


def verdicts(agenda: Agenda) -> list[Judgement]:
    """What the runs of a study say of its claims, of which it has some."""
    study = agenda.comparison.study
    whole = [
        StoredRun(run.folder, read_json(run.folder.record, RunRecord))
        for run in agenda.settled.values()
    ]
    return judge(_claims(study), whole, looked=study.seeds.stop == "decided")
