"""Arms: the variants that a study compares, and the plans of their trials and verdicts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property, partial
from itertools import product
from typing import Any

from harness.errors import UnknownName, UserError
from harness.report.pairing import KeptItems
from harness.spec.derived_names import derived_name, suite_name
from harness.spec.device import Device
from harness.spec.overrides import changes_suite, parse_settings, typed_value
from harness.spec.plan import Plan
from harness.spec.plan_digests import data_sha256
from harness.spec.registry import load_suite, variant_names
from harness.spec.request import Request, suite_overrides
from harness.spec.study import Contender, Study
from harness.spec.suite import Budget
from harness.studies.findings import Job
from harness.train.path import resolve

RATE = "training.learning_rate"
ON_VALIDATION = "score.split=validation"
SETTING = re.compile(
    r"\+(?=[a-z_]\w*(?:\.[A-Za-z_]\w*)+=)"
)  # begins a setting in the name of an arm


@dataclass(frozen=True)
class Typed:
    """What a command line asks of all runs: ``--set`` and ``--task``."""

    settings: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    def with_more(self, settings: Sequence[str]) -> Typed:
        """The same with further settings."""
        return replace(self, settings=(*self.settings, *settings))


@dataclass(frozen=True)
class Arm:
    """One variant of a study. ``plan`` is its run at the default learning rate and seed 0."""

    plan: Plan

    @cached_property
    def label(self) -> str:
        """The variant's name, with the settings that the study gives it."""
        return self.plan.variant

    @cached_property
    def made(self) -> dict[tuple[object, ...], Job]:
        """Jobs made so far: a study asks for the same ones at every look."""
        return {}

    @property
    def trains(self) -> bool:
        """Whether there is anything to tune and to repeat."""
        return self.plan.trains

    @property
    def default(self) -> float:
        """The learning rate that its file, or the suite, gives it."""
        return self.plan.training.learning_rate


@dataclass(frozen=True)
class StudyArms:
    """What a study compares: its arms in order, one of them the reference.

    ``added`` says of arms that were added later which decision it was (from 0). ``items`` reads
    those of settled runs, which are looked at again after every round.
    """

    study: Study
    arms: tuple[Arm, ...]
    reference: str
    added: dict[str, int] = field(default_factory=dict)
    items: KeptItems = field(default_factory=KeptItems, compare=False, repr=False)

    @cached_property
    def by_label(self) -> dict[str, Arm]:
        """Arms by label."""
        return {arm.label: arm for arm in self.arms}


def compare_what(
    study: Study, device: Device, typed: Typed = Typed(), added: Sequence[str] = ()
) -> StudyArms:
    """Resolve a study's variants on ``device``.

    Args:
        study: the study.
        device: where its runs will run.
        typed: what the command line says besides, for the suite and for every trained variant.
        added: variants that a decision has added since.

    Raises:
        UserError: a variant, pattern, suite or setting that does not fit.
    """
    shared = _for_all(study, typed)
    arms: dict[str, Arm] = {}
    for contender in _contenders(study.variants):
        for arm in _arms(study, contender, shared, device):
            arms.setdefault(arm.label, arm)
    reference = _find_reference(study, list(arms.values()))
    if reference is None:
        (arm,) = _arms_of(study.suite, study.reference, shared, device)
        arms = {arm.label: arm, **arms}
        reference = arm.label
    whole = StudyArms(study, tuple(arms.values()), reference)
    return with_added(whole, device, typed, added) if added else whole


def with_added(
    comparison: StudyArms, device: Device, typed: Typed, added: Sequence[str], known: int = 0
) -> StudyArms:
    """``comparison`` with the variants ``added``, of which it holds the first ``known`` already.

    Raises:
        UserError: see :func:`compare_what`.
    """
    shared = _for_all(comparison.study, typed)
    arms, by_decision = dict(comparison.by_label), dict(comparison.added)
    for number, name in enumerate(added[known:], known):
        for contender in _contenders([name]):
            for arm in _arms(comparison.study, contender, shared, device):
                if arms.setdefault(arm.label, arm) is arm:
                    by_decision[arm.label] = number
    return replace(comparison, arms=tuple(arms.values()), added=by_decision)


def _for_all(study: Study, typed: Typed) -> Typed:
    """What is asked of every run of the study."""
    settings = _with_validation(study, [*_suite_settings(study), *typed.settings])
    return Typed(tuple(settings), typed.tasks)


def _suite_settings(study: Study) -> list[str]:
    lines = [setting_line(key, value) for key, value in study.settings.items()]
    for line in lines:
        if not changes_suite(line):
            raise UserError(
                f"{line.partition('=')[0]} is a setting of variants, not of the suite",
                where=f"[settings] of study {study.name}",
                hint="give it under [grid], or as settings of an entry of variants",
            )
    return lines


def setting_line(key: str, value: object) -> str:
    """A setting as it is typed after ``--set``."""
    return f"{key}={_as_toml(value)}"


def _as_toml(value: object) -> str:
    """A value as ``--set`` reads it: JSON, but for tables, which TOML writes in its own way."""
    if isinstance(value, dict):
        inside = ", ".join(f"{json.dumps(key)} = {_as_toml(one)}" for key, one in value.items())
        return f"{{ {inside} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_toml, value))}]"
    return json.dumps(value)


def _with_validation(study: Study, settings: list[str]) -> list[str]:
    """The settings with a validation split, which the suite need not have."""
    if study.tune.trials == 1:
        return settings
    _, overrides = parse_settings(settings)
    if load_suite(study.suite, overrides).corpus.validation_fraction:
        return settings
    return [*settings, f"corpus.validation_fraction={study.tune.validation_fraction}"]


def _contenders(entries: Sequence[str | Contender]) -> Iterator[Contender]:
    """Entries with patterns spelled out."""
    for entry in entries:
        one = _contender(entry) if isinstance(entry, str) else entry
        if not any(mark in one.variant for mark in "*?["):
            yield one
            continue
        found = [name for name in variant_names() if fnmatchcase(name, one.variant)]
        if not found:
            raise UnknownName("pattern of variants", one.variant, variant_names())
        yield from (one.model_copy(update={"variant": name}) for name in found)


def _contender(entry: str) -> Contender:
    """An entry as an arm is called: a variant and its settings, ``lora_bf16+adapter.r=1``."""
    variant, *settings = SETTING.split(entry)
    pairs = (setting.partition("=") for setting in settings)
    return Contender(variant=variant, settings={key: typed_value(text) for key, _, text in pairs})


def _arms(study: Study, contender: Contender, shared: Typed, device: Device) -> Iterator[Arm]:
    """An arm for every combination of the grid; what does not train has no grid."""
    own = [setting_line(key, value) for key, value in contender.settings.items()]
    (plain,) = _arms_of(study.suite, contender.variant, shared.with_more(own), device)
    if not study.grid or not plain.trains:
        yield plain
        return
    for values in product(*study.grid.values()):
        lines = [setting_line(key, value) for key, value in zip(study.grid, values, strict=True)]
        more = shared.with_more([*own, *lines])
        yield from _arms_of(study.suite, contender.variant, more, device)


def _arms_of(suite: str, variant: str, typed: Typed, device: Device) -> list[Arm]:
    """The arm of one variant; settings of variants are not for one that trains nothing."""
    request = Request((variant,), suite, typed.settings, typed.tasks, seeds=(0,))
    return [Arm(plan) for plan in resolve(request, device)]


def _find_reference(study: Study, arms: Sequence[Arm]) -> str | None:
    labels = [arm.label for arm in arms]
    if study.reference in labels:
        return study.reference
    of_variant = [arm.label for arm in arms if _asked(arm.plan) == study.reference]
    if len(of_variant) > 1:
        raise UnknownName("reference", study.reference, labels, where=f"study {study.name}")
    return of_variant[0] if of_variant else None


def _asked(plan: Plan) -> str:
    return plan.request.variant if plan.request else plan.variant


def verdict_job(arm: Arm, rate: float, seed: int) -> Job:
    """The job of a run for the verdict."""
    key = ("verdict", rate, seed)
    if key not in arm.made:
        arm.made[key] = Job(
            "verdict", arm.label, rate, 1.0, seed, partial(verdict_plan, arm, rate, seed)
        )
    return arm.made[key]


def trial_job(arm: Arm, rate: float, share: float, seed: int) -> Job:
    """The job of a trial."""
    key = ("tune", rate, share, seed)
    if key not in arm.made:
        arm.made[key] = Job(
            "tune", arm.label, rate, share, seed, partial(trial_plan, arm, rate, share, seed)
        )
    return arm.made[key]


def verdict_plan(arm: Arm, rate: float, seed: int) -> Plan:
    """The run that is scored on the held-out split."""
    lines, changes = _at(arm.plan, rate)
    if not lines:
        return arm.plan.model_copy(update={"seed": seed})
    return _renamed(arm.plan, lines, changes | {"seed": seed})


def trial_plan(arm: Arm, rate: float, share: float, seed: int) -> Plan:
    """The run that tries a learning rate with a share of the budget; scored on validation only."""
    plan = arm.plan
    lines, changes = _at(plan, rate)
    lines.append(ON_VALIDATION)
    budget = _shortened(plan.budget, share)
    if budget != plan.budget:
        measure = "tokens" if budget.steps is None else "steps"
        lines.append(f"budget.{measure}={getattr(budget, measure)}")
    score = plan.score.model_copy(update={"split": "validation"}).taken
    changes |= {
        "seed": seed,
        "score": score,
        "budget": budget,
        "data_sha256": data_sha256(score),  # tasks wait for the verdict: nothing is read here
    }
    return _renamed(plan, lines, changes)


def _shortened(budget: Budget, share: float) -> Budget:
    if share >= 1:
        return budget
    if budget.steps is not None:
        return budget.model_copy(update={"steps": max(1, round(budget.steps * share))})
    return budget.model_copy(update={"tokens": max(1, round((budget.tokens or 0) * share))})


def _at(plan: Plan, rate: float) -> tuple[list[str], dict[str, Any]]:
    """What would be typed for ``plan`` at another learning rate, and what that changes in it."""
    if rate == plan.training.learning_rate:
        return [], {}
    training = plan.training.model_copy(update={"learning_rate": rate})
    return [f"{RATE}={rate!r}"], {"training": training}


def _renamed(plan: Plan, lines: Sequence[str], changes: dict[str, Any]) -> Plan:
    """``plan`` with changes, named and requested as if ``lines`` had been typed as ``--set``."""
    request = plan.request
    assert request is not None  # noqa: S101 - arms are resolved from requests
    settings = (*request.settings, *lines)
    variant, suite = parse_settings(settings)
    if request.tasks:
        suite = suite_overrides(Request((request.variant,), request.suite, settings, request.tasks))
    names = {
        "variant": derived_name(request.variant, variant),
        "suite": suite_name(request.suite, suite),
        "request": request.model_copy(update={"settings": settings}),
    }
    return plan.model_copy(update=changes | names)
