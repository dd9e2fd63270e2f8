"""Accounting: what quantization costs, what training wins back, what rank and precision change."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.report import numbers
from harness.report.blocks import Cell, Column, Section, Table, prose, unknown
from harness.report.evidence import Evidence
from harness.report.ranking import TONES, show_difference
from harness.report.rows import Row, twins, without
from harness.report.sample import Sample
from harness.report.scoring import Difference, Scoring, make_difference
from harness.report.statistics import Effect, holm, pool_seeds


@dataclass(frozen=True)
class Step:
    """One line of the account: a row against another, and the question it answers."""

    question: str
    row: Row
    against: Row


def accounting_section(evidence: Evidence) -> Section | None:
    """Quantization accounting in one table."""
    main = evidence.main
    if main is None or evidence.main_sample is None:
        return None
    steps, found = _answers(main, evidence.main_sample, _steps(evidence.rows))
    if not steps:
        return None
    columns = (
        Column("question", number=False),
        Column("row", number=False),
        Column("against", number=False),
        Column(f"{main.key.title} [95 % interval]", help="change of the row against the other"),
        Column("p (Holm)"),
        Column("verdict", number=False),
        Column("weights", help="change of the stored bytes"),
        Column("wins back"),
    )
    rows = tuple(
        _cells(evidence, step, difference) for step, difference in zip(steps, found, strict=True)
    )
    caption = (
        "Paired on the same items, p-values corrected by Holm's method within this table. Wins "
        "back: share of the base's loss by quantization (on the log scale) that training undoes; "
        "over 100 % means better than the unquantized base."
    )
    table = Table("accounting", columns, rows, caption)
    intro = prose("Each line answers one question by one paired comparison.")
    return Section("accounting", "Quantization accounting", (intro, table))


def _answers(
    main: Scoring, sample: Sample, steps: Sequence[Step]
) -> tuple[list[Step], list[Difference]]:
    """The steps that can be compared, and their differences."""
    known, effects = [], []
    for step in steps:
        effect = sample.paired(step.row.label, step.against.label)
        if effect is not None:
            known.append(step)
            effects.append(effect)
    effects = _pooled(sample, known, effects)
    adjusted = holm([effect.p_value for effect in effects])
    differences = [
        make_difference(step.row.label, effect, p, main.scale)
        for step, effect, p in zip(known, effects, adjusted, strict=True)
    ]
    return known, differences


def _pooled(sample: Sample, steps: Sequence[Step], effects: list[Effect]) -> list[Effect]:
    """Seed variances shared among steps that have as many trained sides."""
    kinds = [sample.trains(step.row.label) + sample.trains(step.against.label) for step in steps]
    pooled = list(effects)
    for kind in (1, 2):
        places = [place for place, found in enumerate(kinds) if found == kind]
        shared = pool_seeds([effects[place] for place in places])
        for place, effect in zip(places, shared, strict=True):
            pooled[place] = effect
    return pooled


def _steps(rows: Sequence[Row]) -> list[Step]:
    """Every question that the rows at hand can answer, in reading order."""
    finished = [row for row in rows if row.finished]
    bases = {row.plan.quantization.label: row for row in finished if row.plan.method == "none"}
    trained = [row for row in finished if row.plan.trains]
    steps: list[Step] = []
    base = bases.get("none")
    for name, row in sorted(bases.items()):
        if base is not None and name != "none":
            steps.append(Step(f"what {name} costs the base", row, base))
    for row in trained:
        own = bases.get(row.plan.quantization.label)
        if own is not None:
            steps.append(Step("what training gains on the same weights", row, own))
    if base is not None:
        question = "quantized and trained, against the plain base"
        quantized = [row for row in trained if row.plan.quantization.label != "none"]
        steps += [Step(question, row, base) for row in quantized]
    steps += [
        Step("what quantization costs after training", row, other)
        for row, other in twins(trained)
        if row.plan.quantization.label != "none" and other.plan.quantization.label == "none"
    ]
    steps += [
        Step("what double quantization changes", row, other)
        for row, other in twins(finished)
        if row.plan.quantization.double
        and not other.plan.quantization.double
        and row.plan.quantization.type == other.plan.quantization.type
    ]
    return steps + _rank_steps(trained)


def _rank_steps(rows: Sequence[Row]) -> list[Step]:
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
                steps.append(Step(f"what rank {high} changes against {low}", over, under))
    return steps


def _cells(evidence: Evidence, step: Step, found: Difference) -> tuple[Cell, ...]:
    assert evidence.main is not None  # noqa: S101 - the caller has looked
    low, high = (show_difference(evidence.main, end) for end in (found.low, found.high))
    text = f"{show_difference(evidence.main, found.estimate)} [{low}, {high}]"
    own, other = step.row.weight_bytes, step.against.weight_bytes
    weights = unknown()
    if own is not None and other:
        weights = Cell(numbers.percent(own / other - 1, signed=True, digits=1), own / other)
    return (
        Cell(step.question, step.question),
        Cell(step.row.label, step.row.label, style="code"),
        Cell(step.against.label, step.against.label, style="code"),
        Cell(text, found.estimate),
        Cell(numbers.p_value(found.adjusted_p), found.adjusted_p),
        Cell(found.verdict, found.verdict, TONES[found.verdict]),
        weights,
        _won_back(evidence, step),
    )


def _won_back(evidence: Evidence, step: Step) -> Cell:
    """Share of the quantized base's loss that training undoes."""
    if step.question != "what training gains on the same weights":
        return unknown()
    assert evidence.main is not None  # noqa: S101 - the caller has looked
    main = evidence.main
    base = next((r for r in evidence.rows if r.is_reference_base and r.label in main.values), None)
    if base is None or base is step.against or not main.scale.relative:
        return unknown()
    plain, quantized, trained = (
        math.log(main.values[row.label].value) for row in (base, step.against, step.row)
    )
    lost = (quantized - plain) * main.scale.sign
    if lost <= 0:
        return unknown()
    share = (quantized - trained) * main.scale.sign / lost
    return Cell(numbers.percent(share, digits=0), share)
