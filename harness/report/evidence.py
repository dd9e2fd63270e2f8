"""Evidence: the rows and scores of one suite's runs, which all sections read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pydantic import Field

from harness.errors import UnknownName
from harness.records.store import BrokenRun, StoredRun
from harness.report.rows import Row, make_rows, memory_kind
from harness.report.sample import Sample
from harness.report.scoring import Scoring, make_scoring, score_keys
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
    resamples: int = Field(default=10_000, ge=100)


@dataclass(frozen=True)
class Evidence:
    """Everything the sections read: rows, scores and what could not be read."""

    request: ReportRequest
    rows: tuple[Row, ...]
    reference: str | None
    scorings: tuple[Scoring, ...]
    broken: tuple[BrokenRun, ...]
    memory_kind: str

    @cached_property
    def main(self) -> Scoring | None:
        """The score that ranks."""
        return self.scorings[0] if self.scorings else None

    @property
    def main_sample(self) -> Sample | None:
        """The resampled runs of the score that ranks."""
        return self.main.sample if self.main else None

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
    scorings: list[Scoring] = []
    for key in score_keys(rows):
        made = make_scoring(rows, key, reference, request.margin, request.resamples)
        # Replicates are large, and only the ranking score is looked at again.
        scorings.append(replace(made, sample=None) if scorings else made)
    return Evidence(request, rows, reference, tuple(scorings), tuple(broken), memory_kind(rows))


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
