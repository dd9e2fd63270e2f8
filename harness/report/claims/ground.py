"""Ground: runs that can be compared with each other, by variant, at default and best rates."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from harness.records.record import RunRecord
from harness.records.store import StoredRun
from harness.records.validation import is_trial, validation_loss
from harness.report.claims.decide import LookCorrection
from harness.report.claims.protocol import how_apart, protocols_of
from harness.report.origins import base_weights
from harness.report.pairing import ScoreKey
from harness.report.rows import Row, make_rows
from harness.report.settings import flatten
from harness.spec.claim import holds
from harness.spec.derived_names import derived_name
from harness.spec.overrides import parse_settings
from harness.spec.plan import Plan

RATE = "training.learning_rate"


@dataclass(frozen=True)
class VariantRuns:
    """A variant: its held-out runs, in whichever settings, and its trials.

    ``rates`` are the validation losses of the learning rates that were tried with the whole
    budget. ``usual`` is how most rows of the ground are scored: of two rows of this variant, the
    one that is scored so stands for it, and otherwise the one with more seeds.
    """

    name: str
    rows: tuple[Row, ...]
    rates: Mapping[float, float]
    usual: str = ""

    @property
    def best_rate(self) -> float | None:
        """The rate with the least validation loss."""
        known = {rate: loss for rate, loss in self.rates.items() if math.isfinite(loss)}
        return min(known, key=known.__getitem__) if known else None

    @property
    def default(self) -> Row | None:
        """Its runs at the variant's own rate."""
        return self._first([row for row in self.rows if row.variant == self.name])

    @property
    def best(self) -> Row | None:
        """Its runs at its best rate; None where that was not run on the held-out split.

        What is not trained has no rate.
        """
        default = self.default
        if default is not None and not default.plan.trains:
            return default
        at_best = [r for r in self.rows if r.plan.training.learning_rate == self.best_rate]
        return self._first(at_best)

    def _first(self, rows: Sequence[Row]) -> Row | None:
        def rank(row: Row) -> tuple[bool, int]:
            return _scoring(row.plan) == self.usual, len(row.seeds)

        return max(rows, key=rank, default=None)

    def with_score(self, key: ScoreKey) -> VariantRuns:
        """Of its runs those that took a score; all of them where none did.

        A variant may be scored further in runs of their own, such as on MMLU or in another form.
        """
        return self._those(lambda record: key.find(record) is not None)

    def validated(self) -> VariantRuns:
        """Of its runs those with validation losses as they trained; all of them where none has."""
        return self._those(lambda one: one.training is not None and bool(one.training.validation))

    def _those(self, fits: Callable[[RunRecord], bool]) -> VariantRuns:
        found = tuple(row for row in self.rows if any(map(fits, row.finished)))
        return replace(self, rows=found or self.rows)

    @property
    def row(self) -> Row | None:
        """The runs that stand for it: at its best rate where it was tuned."""
        return self.best or self.default


@dataclass(frozen=True)
class Ground:
    """Runs on one model, corpus, budget and device, of which suites decided the same.

    ``plan`` is that of one run, a trained one where there is any. ``apart`` says why other
    variants that were run on this model, corpus, budget and device are not on this ground.
    ``billions`` counts the model's parameters, ``tokens`` what its runs were trained on (their
    median; None where nothing was trained), ``batch`` the conversations of a step. ``tuned`` says
    that a study searched learning rates, ``looked`` that one which did not may have stopped at
    any of its seeds, ``alone`` that a single comparison is judged, by this ground's runs.
    """

    model: str
    device: str
    suite: str
    billions: float | None
    arms: Mapping[str, VariantRuns]
    plan: Plan
    tuned: bool = False
    tokens: float | None = None
    batch: int | None = None
    apart: Mapping[str, str] = field(default_factory=dict)
    looked: bool = False
    alone: bool = False

    @property
    def title(self) -> str:
        """Model, device and suite."""
        return f"{self.model} on {self.device}, suite {self.suite}"

    def other_corpus(self, main: Ground) -> str:
        """What tells the corpus from that of ``main``: its name, or else how it is used."""
        plans = (self.plan, main.plan)
        name, its_name = (Path(plan.corpus.source).name.partition("@")[0] for plan in plans)
        if name != its_name:
            return f"corpus {name}"
        # What comes from the hub has a revision instead of a digest.
        data, its_data = (plan.corpus_sha256 or plan.corpus.source for plan in plans)
        if data != its_data:
            return f"another {name}"
        own, its = (plan.corpus.model_dump(exclude={"source"}) for plan in plans)
        return ", ".join(f"corpus.{key}={own[key]}" for key in own if own[key] != its[key])

    def find(self, names: Sequence[str], conditions: Sequence[str]) -> VariantRuns | None:
        """The first of these variants that was run, in runs that meet the conditions."""
        for name in names:
            arm = self.arms.get(name)
            if arm is not None and _meets(arm, conditions):
                return arm
        return None

    def looks(self, *rows: Row) -> int:
        """How often a study may have looked at the seeds of these rows before it stopped.

        Records do not say when a study looked, so one with a fixed number of seeds pays for looks
        that it did not take; where nothing was tuned, there is one.
        """
        seeds = max((len(row.seeds) for row in rows), default=0)
        return max(seeds - 1, 1) if self.tuned or self.looked else 1

    def correction(self, *rows: Row) -> LookCorrection:
        """What a comparison of these rows is corrected for."""
        return LookCorrection(self.looks(*rows), self.alone)


def _meets(arm: VariantRuns, conditions: Sequence[str]) -> bool:
    row = arm.row
    if row is None:
        return not conditions
    settings = flatten(row.plan.model_dump(mode="json"))
    return all(holds(condition, settings) for condition in conditions)


def make_grounds(runs: Iterable[StoredRun]) -> list[Ground]:
    """Sort runs by what must be alike before they may be compared, largest ground first.

    Untrained models have no budget, and belong to every ground on their model and corpus.
    """
    runs = list(runs)
    trained: dict[tuple[str, str, str], list[StoredRun]] = {}
    untrained: dict[str, list[StoredRun]] = {}
    plans = [run.record.plan for run in runs]
    weights, protocols = base_weights(plans), protocols_of(plans)
    for run, plan, own, protocol in zip(runs, plans, weights, protocols, strict=True):
        alike = f"{_alike(plan)} {own} {protocol.precision}"
        if plan.trains:
            key = alike, plan.budget.model_dump_json(), protocol.training
            trained.setdefault(key, []).append(run)
        else:
            untrained.setdefault(alike, []).append(run)
    places = {alike for alike, _, _ in trained}
    members = [
        [*found, *untrained.get(alike, [])] for (alike, _, _), found in sorted(trained.items())
    ]
    alone = [found for alike, found in sorted(untrained.items()) if alike not in places]
    grounds = _apart([_ground(found) for found in [*members, *alone]])
    return sorted(grounds, key=lambda ground: -len(ground.arms))


def _apart(grounds: Sequence[Ground]) -> list[Ground]:
    """The grounds, each with why what was run on another with its budget is not on it."""
    return [
        replace(
            ground,
            apart={
                name: how_apart(ground.plan, other.plan)
                for other in grounds
                if other is not ground and _seem_alike(ground.plan, other.plan)
                for name in other.arms.keys() - ground.arms.keys()
            },
        )
        for ground in grounds
    ]


def _seem_alike(own: Plan, other: Plan) -> bool:
    return (_alike(own), own.budget) == (_alike(other), other.budget)


def main_ground(grounds: Iterable[Ground]) -> Ground | None:
    """The one with the most variants, of equals the last by name; None where there is none."""
    return max(grounds, key=lambda ground: (len(ground.arms), ground.title), default=None)


def _alike(plan: Plan) -> str:
    """Model, corpus and device as text; scores are compared one by one anyway.

    Where weights come from is no part of it (see :func:`base_weights`).
    """
    corpus = plan.corpus.model_dump(mode="json", exclude={"source"} if plan.corpus_sha256 else None)
    model = plan.model.model_dump(mode="json", exclude={"source", "description"})
    return json.dumps([model, corpus, plan.corpus_sha256, plan.device.name], sort_keys=True)


def _ground(runs: Sequence[StoredRun]) -> Ground:
    trials = [run for run in runs if is_trial(run.record)]
    rows = make_rows(run for run in runs if not is_trial(run.record))
    names = sorted({_plain(run.record.plan) for run in runs})
    scorings = Counter(_scoring(row.plan) for row in rows if row.plan.trains)
    usual = max(scorings, key=scorings.__getitem__, default="")
    arms = {name: _arm(name, rows, trials, usual) for name in names}
    totals = [
        record.census.total - record.census.trainable
        if record.plan.adapter
        else record.census.total
        for run in runs
        if (record := run.record).census
    ]
    trained = [run.record.training for run in runs if run.record.training]
    batches = [run.record.plan.budget.batch_size for run in runs if run.record.plan.trains]
    plan = runs[0].record.plan
    suites = Counter(run.record.plan.suite.partition("+")[0] for run in runs)
    return Ground(
        model=plan.model.name,
        device=plan.device.name,
        suite=max(suites, key=suites.__getitem__),
        billions=min(totals) / 1e9 if totals else None,
        arms=arms,
        plan=plan,
        tuned=bool(trials),
        tokens=median(one.tokens.non_padding for one in trained) if trained else None,
        batch=max(batches, default=None),
    )


def _plain(plan: Plan) -> str:
    """The variant's name without its learning rate: all that is tuned is one arm.

    A long name ends in a digest of all its settings, so it is made anew from what was asked.
    """
    if plan.request is not None:
        name = plan.request.variant
        overrides, _ = parse_settings(plan.request.settings)
        if derived_name(name, overrides) == plan.variant:
            return derived_name(name, _without_rate(overrides))
    parts = plan.variant.split("+")
    return "+".join(part for part in parts if not part.startswith(f"{RATE}="))


def _without_rate(overrides: Mapping[str, Any]) -> dict[str, Any]:
    section, _, key = RATE.partition(".")
    kept = {name: value for name, value in overrides.items() if name != section}
    rest = {name: value for name, value in overrides.get(section, {}).items() if name != key}
    return kept | {section: rest} if rest else kept


def _arm(name: str, rows: Sequence[Row], trials: Sequence[StoredRun], usual: str) -> VariantRuns:
    own = tuple(row for row in rows if _plain(row.plan) == name and row.finished)
    rates = {
        run.record.plan.training.learning_rate: validation_loss(run.record)
        for run in trials
        if _plain(run.record.plan) == name
    }
    return VariantRuns(name, own, rates, usual)


def _scoring(plan: Plan) -> str:
    """Equal for runs that are scored and validated alike."""
    return plan.score.model_dump_json() + plan.validation.model_dump_json()
