"""Questions: pairs of rows whose difference answers one thing, such as what a rank changes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.judging import Difference, PValues, make_difference
from harness.report.rows import Row, twins
from harness.report.sample import Sample, Scale
from harness.report.settings import alpha_over_rank, without
from harness.report.statistics.effects import Effect

GAIN = "what training gains on the same weights"


@dataclass(frozen=True)
class Question:
    """A row against another, and what their difference answers."""

    text: str
    row: Row
    against: Row


@dataclass(frozen=True)
class Asked:
    """A question with the paired difference that answers it, not yet judged.

    Twins share seeds and data order, so that only their own paired noise counts: nothing is
    pooled between questions.
    """

    question: Question
    effect: Effect

    def answer(self, adjusted: PValues | None, scale: Scale) -> JudgedQuestion:
        """The question with its difference judged."""
        label = self.question.row.label
        return JudgedQuestion(self.question, make_difference(label, self.effect, adjusted, scale))


@dataclass(frozen=True)
class JudgedQuestion:
    """A question with its judged difference."""

    question: Question
    difference: Difference


def ask(sample: Sample, rows: Sequence[Row]) -> list[Asked]:
    """Every question that the rows at hand can answer on one score."""
    found = []
    for question in questions(rows):
        effect = sample.paired(question.row.label, question.against.label)
        if effect is not None:
            found.append(Asked(question, effect))
    return found


def questions(rows: Sequence[Row]) -> list[Question]:
    """Every question that the rows at hand can answer, in reading order."""
    finished = [row for row in rows if row.finished]
    bases = {row.plan.quantization.label: row for row in finished if row.plan.method == "none"}
    trained = [row for row in finished if row.plan.trains]
    steps: list[Question] = []
    base = bases.get("none")
    for name, row in sorted(bases.items()):
        if base is not None and name != "none":
            steps.append(Question(f"what {name} costs the base", row, base))
    for row in trained:
        own = bases.get(row.plan.quantization.label)
        if own is not None:
            steps.append(Question("what training gains on the same weights", row, own))
    if base is not None:
        question = "quantized and trained, against the plain base"
        quantized = [row for row in trained if row.plan.quantization.label != "none"]
        steps += [Question(question, row, base) for row in quantized]
    steps += [
        Question("what quantization costs after training", row, other)
        for row, other in twins(trained)
        if row.plan.quantization.label != "none" and other.plan.quantization.label == "none"
    ]
    steps += [
        Question("what double quantization changes", row, other)
        for row, other in twins(finished)
        if row.plan.quantization.double
        and not other.plan.quantization.double
        and row.plan.quantization.type == other.plan.quantization.type
    ]
    return steps + _rank_steps(trained)


def _rank_steps(rows: Sequence[Row]) -> list[Question]:
    """Each rank against the next lower one of variants that differ in rank only."""
    groups: dict[str, list[tuple[int, Row]]] = {}
    for row in rows:
        rank = row.plan.adapter.fields.get("r") if row.plan.adapter else None
        if isinstance(rank, int) and row.plan.adapter is not None:
            fields = {k: v for k, v in row.plan.adapter.fields.items() if k != "r"}
            key = without(row.plan, "adapter") + repr((row.plan.adapter.type, fields))
            groups.setdefault(key, []).append((rank, row))
    steps = []
    for members in groups.values():
        ordered = sorted(members, key=lambda member: member[0])
        for (low, under), (high, over) in itertools.pairwise(ordered):
            if low != high:
                text = f"what rank {high} changes against {low}{_scales(under, over)}"
                steps.append(Question(text, over, under))
    return steps


def _scales(under: Row, over: Row) -> str:
    """The scale of the update alpha/r on both sides, where it changes with the rank."""
    own, other = alpha_over_rank(over.plan), alpha_over_rank(under.plan)
    if own is None or other is None or own == other:
        return ""
    return f" (alpha/r {own:.3g} against {other:.3g})"
