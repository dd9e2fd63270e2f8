"""Evidence: the rows and scores of one suite's runs, which all sections read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pydantic import Field, model_validator

from harness.errors import UnknownName
from harness.records.store import BrokenRun, StoredRun
from harness.report.contest import Contest, hold_contest
from harness.report.judging import PValues, adjust
from harness.report.machines import of_most, same_machine
from harness.report.pairing import ScoreKey
from harness.report.questions import Asked, JudgedQuestion, ask
from harness.report.rows import Row, make_rows, memory_kind
from harness.report.sample import Sample
from harness.report.scoring import Scoring, make_scoring, score_keys, with_differences
from harness.report.statistics.effects import Effect
from harness.report.statistics.multiplicity import benjamini_hochberg
from harness.spec.schema import Frozen

REFERENCES = ("lora_bf16", "lora_fp16", "full_finetune", "base")


class ReportRequest(Frozen):
    """What the reader wants to know."""

    suite: str
    reference: str | None = Field(default=None, description="row the others are compared with")
    margin: float = Field(default=0.01, gt=0, description="differences within it do not matter")
    budget_memory_bytes: int | None = None
    max_loss: float | None = Field(
        default=None, description="largest loss of quality against the reference, as a share"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_resamples(cls, data: Any) -> Any:
        """Requests of older reports name a number of resamples, which nothing draws any more."""
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if key != "resamples"}
        return data


@dataclass(frozen=True)
class Evidence:
    """Everything the sections read: rows, scores and what could not be read.

    ``memory_kind`` is the measure of the rows that are ``costed``; ``measures`` has that of others.

    The first scoring is the primary one, which ranks; the others are secondary. ``asked`` is the
    primary score that the suite names, as far as no run has it.
    """

    request: ReportRequest
    rows: tuple[Row, ...]
    reference: str | None
    scorings: tuple[Scoring, ...]
    answers: tuple[JudgedQuestion, ...]
    broken: tuple[BrokenRun, ...]
    memory_kind: str
    asked: str | None = None

    @cached_property
    def main(self) -> Scoring | None:
        """The primary score, which ranks."""
        return self.scorings[0] if self.scorings else None

    @property
    def main_sample(self) -> Sample | None:
        """The runs of the primary score."""
        return self.main.sample if self.main else None

    @cached_property
    def contest(self) -> Contest | None:
        """Which of the compared rows may be the best on the primary score."""
        if self.main is None or self.main.sample is None:
            return None
        compared = [label for label in self.main.ordered() if self.main.sample.columns(label)]
        return hold_contest(self.main.sample, self.main.scale, compared)

    @cached_property
    def costed(self) -> frozenset[str]:
        """Labels of the rows whose costs are compared with each other: those of one device."""
        return frozenset(row.label for row in of_most(self.rows, self.reference))

    def beside(self, row: Row) -> tuple[Row, ...]:
        """The rows on the device of a row, itself included: only their costs compare."""
        return tuple(one for one in self.rows if same_machine(one, row))

    @cached_property
    def measures(self) -> dict[str, str]:
        """By label, the measure of memory that most rows on the device of a row have."""
        found: dict[str, str] = {}
        for row in self.rows:
            if row.label not in found:
                rows = self.beside(row)
                found |= dict.fromkeys([one.label for one in rows], memory_kind(rows))
        return found

    def peak(self, row: Row) -> int | None:
        """Peak memory of a row, by the measure of its device."""
        return row.peak_bytes(self.measures[row.label])

    def needed(self, row: Row) -> str:
        """Peak memory of a row in words, by the measure of its device."""
        return row.needed_said(self.measures[row.label])

    @cached_property
    def by_label(self) -> dict[str, Row]:
        """Rows by label."""
        return {row.label: row for row in self.rows}

    @cached_property
    def ranked(self) -> tuple[Row, ...]:
        """Rows from best to worst, then finished ones without the score, then failures."""
        place = {label: i for i, label in enumerate(self.main.ordered())} if self.main else {}
        return tuple(
            sorted(
                self.rows,
                key=lambda row: (place.get(row.label, len(place)), not row.finished, row.label),
            )
        )


def gather(
    runs: Sequence[StoredRun], broken: Sequence[BrokenRun], request: ReportRequest
) -> Evidence:
    """Rows and scores of the runs of ``request.suite``."""
    rows = make_rows(run for run in runs if run.record.plan.suite == request.suite)
    reference = _reference(rows, request.reference)
    keys, missing = _primary_first(score_keys(rows), rows)
    scorings: list[Scoring] = []
    for key in keys:
        made = make_scoring(rows, key, reference, request.margin)
        # Items take memory, and only those of the primary score are looked at again.
        scorings.append(replace(made, sample=None) if scorings else made)
    corrected, answers = _explore(rows, scorings, reference)
    return Evidence(
        request=request,
        rows=rows,
        reference=reference,
        scorings=corrected,
        answers=answers,
        broken=tuple(broken),
        memory_kind=memory_kind(of_most(rows, reference)),
        asked=missing,
    )


def _primary_first(keys: list[ScoreKey], rows: Sequence[Row]) -> tuple[list[ScoreKey], str | None]:
    """Scores with the one first that the suite calls primary, or its name where no run has it."""
    plans = [record.plan for row in rows for record in row.records]
    named = Counter(plan.score.primary for plan in plans if plan.score.primary)
    if not named:
        return keys, None
    wanted = named.most_common(1)[0][0]
    fitting = [key for key in keys if key.is_called(wanted)]
    if not fitting:
        return keys, wanted
    return [fitting[0], *(key for key in keys if key != fitting[0])], None


def _explore(
    rows: Sequence[Row], scorings: Sequence[Scoring], reference: str | None
) -> tuple[tuple[Scoring, ...], tuple[JudgedQuestion, ...]]:
    """Correct all secondary comparisons together: other scores, and questions on the primary one.

    The primary score's comparisons with the reference keep Holm's correction. A question about
    the same two rows as one of those has the same answer.
    """
    if not scorings:
        return (), ()
    main, *others = scorings
    asked = ask(main.sample, rows) if main.sample is not None else []
    family: dict[str, Effect] = {}
    bounds: dict[str, float] = {}
    for number, scoring in enumerate(others):
        own = {f"{number} {label}": found for label, found in scoring.effects.items()}
        family |= own
        bounds |= dict.fromkeys(own, scoring.scale.bound)
    own = {f"question {number}": item.effect for number, item in enumerate(asked)}
    family |= own
    bounds |= dict.fromkeys(own, main.scale.bound)
    adjusted = adjust(family, bounds, benjamini_hochberg)
    judged = tuple(
        with_differences(scoring, _of(number, scoring, adjusted))
        for number, scoring in enumerate(others)
    )
    answers = []
    for number, item in enumerate(asked):
        known = _known(main, item, reference)
        answers.append(known or item.answer(adjusted.get(f"question {number}"), main.scale))
    return (main, *judged), tuple(answers)


def _known(main: Scoring, item: Asked, reference: str | None) -> JudgedQuestion | None:
    """The answer to a question about two rows that the primary comparisons hold already."""
    row, against = item.question.row.label, item.question.against.label
    if against == reference and row in main.differences:
        return JudgedQuestion(item.question, main.differences[row])
    if row == reference and against in main.differences:
        known = main.differences[against]
        if known.adjusted_p is None or known.equal_p is None:
            adjusted = None
        else:
            adjusted = PValues(known.adjusted_p, known.equal_p)
        return Asked(item.question, main.effects[against].negated()).answer(adjusted, main.scale)
    return None


def _of(number: int, scoring: Scoring, adjusted: dict[str, PValues]) -> dict[str, PValues]:
    """Corrected p-values of one secondary score, by row."""
    keys = {label: f"{number} {label}" for label in scoring.effects}
    return {label: adjusted[key] for label, key in keys.items() if key in adjusted}


def _reference(rows: Sequence[Row], asked: str | None) -> str | None:
    labels = [row.label for row in rows if row.finished]
    if asked is not None:
        of_variant = [row.label for row in rows if row.finished and row.variant == asked]
        if asked not in labels and not of_variant:
            raise UnknownName("reference", asked, labels)
        return asked if asked in labels else of_variant[0]
    for name in REFERENCES:
        for row in rows:
            if row.finished and row.variant == name:
                return row.label
    trained = [row.label for row in rows if row.finished and row.plan.trains]
    return trained[0] if trained else (labels[0] if labels else None)
