"""Accounting: what quantization costs, what training wins back, what rank and precision change."""

from __future__ import annotations

import math

from harness import numbers
from harness.report.blocks import (
    Block,
    Cell,
    Column,
    Section,
    Table,
    folded,
    prose,
    unknown,
    without_empty_columns,
)
from harness.report.cells import difference_text, judged_cell
from harness.report.evidence import Evidence
from harness.report.questions import GAIN, JudgedQuestion, Question
from harness.report.ranking import packed_base


def accounting_section(evidence: Evidence) -> Section | None:
    """Quantization accounting in one table."""
    main = evidence.main
    if main is None or not evidence.answers:
        return None
    columns = (
        Column("question", number=False),
        Column("row", number=False),
        Column("against", number=False),
        Column(f"{main.key.title} [95 % interval]", help="change of the row against the other"),
        Column("p (corrected)"),
        Column("verdict", number=False),
        Column("seeds"),
        Column("weights", help="change of the stored bytes"),
        Column("recovered"),
    )
    rows = tuple(_cells(evidence, answer) for answer in evidence.answers)
    caption = (
        "Every comparison is paired on the same items and seeds and uses the spread between "
        f"seeds of its own two rows. Comparisons with {evidence.reference} are those of the "
        "table above, corrected by Holm's method; all others are exploratory and corrected "
        "together with the secondary scores (Benjamini and Hochberg). Recovered: what "
        "training gains on quantized weights as a share of what quantization had cost (on "
        "the log scale, without an interval); some of it is what training gains on any "
        "weights."
    )
    table = without_empty_columns(Table("accounting", columns, rows, caption))
    blocks: list[Block] = [prose("Each row answers one question by one paired comparison.")]
    packed = packed_base(row.plan for row in evidence.rows)
    if packed:
        blocks.append(prose(packed))
    return Section(
        "accounting",
        "Quantization accounting",
        (*blocks, folded(table, f"{len(rows)} questions and answers")),
    )


def _cells(evidence: Evidence, answer: JudgedQuestion) -> tuple[Cell, ...]:
    assert evidence.main is not None  # noqa: S101 - the caller has looked
    question, found = answer.question, answer.difference
    own, other = question.row.weight_bytes, question.against.weight_bytes
    weights = unknown()
    if own is not None and other:
        weights = Cell(numbers.percent(own / other - 1, signed=True, digits=1), own / other)
    p = unknown()
    if found.adjusted_p is not None and not found.obstacle:
        p = Cell(numbers.p_value(found.adjusted_p), found.adjusted_p)
    trained = question.row.plan.trains or question.against.plan.trains
    seeds = found.worse_by.seeds
    return (
        Cell(question.text, question.text),
        Cell(question.row.label, question.row.label, style="code"),
        Cell(question.against.label, question.against.label, style="code"),
        Cell(difference_text(evidence.main, found), found.estimate),
        p,
        judged_cell(found),
        Cell(str(seeds), seeds) if trained else Cell("not trained", 0, "muted"),
        weights,
        _won_back(evidence, question),
    )


def _won_back(evidence: Evidence, question: Question) -> Cell:
    """Share of the quantized base's loss that training undoes."""
    if question.text != GAIN:
        return unknown()
    assert evidence.main is not None  # noqa: S101 - the caller has looked
    main = evidence.main
    base = next((r for r in evidence.rows if r.is_reference_base and r.label in main.values), None)
    if base is None or base is question.against or not main.scale.relative:
        return unknown()
    plain, quantized, trained = (
        math.log(main.values[row.label].value) for row in (base, question.against, question.row)
    )
    lost = (quantized - plain) * main.scale.sign
    if lost <= 0:
        return unknown()
    share = (quantized - trained) * main.scale.sign / lost
    return Cell(numbers.percent(share, digits=0), share)
