"""Ranking: the table that orders variants by quality and shows what each costs."""

from __future__ import annotations

from harness.records.record import PHASES, RunRecord
from harness.report import numbers
from harness.report.blocks import Block, Cell, Column, Details, Section, Table, Tone, prose, unknown
from harness.report.evidence import Evidence
from harness.report.rows import MEMORY_KINDS, Row, plain
from harness.report.scoring import Difference, Scoring

DETAILS_LENGTH = 300
TONES: dict[str, Tone] = {
    "better": "good",
    "worse": "bad",
    "equivalent": "good",
    "undecided": "muted",
}


def ranking_section(evidence: Evidence) -> Section | None:
    """Every variant, best first, failures included; other precisions in a table of their own."""
    if not evidence.rows:
        return Section("ranking", "Ranking", (prose("No runs yet."),))
    blocks: list[Block] = [ranking(evidence)]
    others = [scoring for scoring in evidence.scorings if not scoring.headline]
    if others:
        blocks.append(Details("All other scores", (_other_scores(evidence, others),)))
    if evidence.scorings:
        blocks.append(Details("How each score was taken", (_protocols(evidence),)))
    return Section("ranking", "Ranking", tuple(blocks))


def _protocols(evidence: Evidence) -> Table:
    titles = ("score", "task", "metric", "unit", "better", "weights scored", "items", "details")
    columns = tuple(Column(title, number=title == "items") for title in titles)
    rows = tuple(_protocol_cells(evidence, scoring) for scoring in evidence.scorings)
    caption = (
        "Weights scored: as trained (quantized where the variant is), on a 16-bit base, or in "
        "another form. "
        "Details are of the first run that has the score."
    )
    return Table("protocols", columns, rows, caption)


def _protocol_cells(evidence: Evidence, scoring: Scoring) -> tuple[Cell, ...]:
    records = (record for row in evidence.ranked for record in row.finished)
    score = next(found for record in records if (found := scoring.key.find(record)))
    details = "; ".join(f"{key} = {plain(value)}" for key, value in score.details.items())
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
    return Table("scores", columns, rows, "± is half the 95 % interval.")


def ranking(evidence: Evidence) -> Table:
    """One row per variant, best first, failed ones last."""
    headline = [scoring for scoring in evidence.scorings if scoring.headline]
    columns = [Column("variant", number=False)]
    columns += [Column(_score_title(s), help=_score_help(s)) for s in headline]
    if evidence.main is not None:
        columns.append(Column(f"vs. {evidence.reference}", help="paired, with 95 % interval"))
        columns.append(Column("from before", help="change by training, same precision"))
    columns += [
        Column("verdict", number=False),
        Column("trainable"),
        Column("weights", help="stored bytes, quantization state included"),
        Column("peak memory", help=MEMORY_KINDS[evidence.memory_kind]),
        Column("tokens/s", help="median, non-padding, steady steps"),
        Column("train time"),
        Column("run time"),
        Column("seeds"),
    ]
    rows = tuple(_cells(evidence, headline, row) for row in evidence.ranked)
    return Table("ranking", tuple(columns), rows, _caption(evidence))


def _caption(evidence: Evidence) -> str:
    memory = MEMORY_KINDS[evidence.memory_kind]
    reused = any(row.reused(phase) for row in evidence.rows for phase in PHASES)
    return (
        f"± is half the 95 % interval. Peak memory: {memory}, highest over the load, prepare and "
        "train phases (load and score for untrained references). – means not measured."
    ) + (" Run time: as elapsed, so scoring that was reused is not in it." if reused else "")


def _score_title(scoring: Scoring) -> str:
    arrow = "↓" if scoring.scale.direction == "lower" else "↑"
    return f"{scoring.key.title} {arrow}"


def _score_help(scoring: Scoring) -> str:
    return f"{scoring.scale.unit}, {scoring.scale.direction} is better"


def _cells(evidence: Evidence, headline: list[Scoring], row: Row) -> tuple[Cell, ...]:
    cells = [Cell(row.label, row.label, style="code")]
    cells += [score_cell(scoring, row.label) for scoring in headline]
    difference = evidence.main.differences.get(row.label) if evidence.main else None
    if evidence.main is not None:
        cells.append(difference_cell(evidence.main, difference))
        cells.append(_change(evidence.main, row))
    memory = row.peak_bytes(evidence.memory_kind)
    train = row.phase_seconds("train")
    cells += [
        verdict_cell(evidence, row, difference),
        _plain(numbers.count(row.trainable), row.trainable),
        _plain(numbers.size(row.weight_bytes), row.weight_bytes),
        _plain(numbers.size(memory), memory),
        _plain(numbers.number(row.tokens_per_second, digits=3), row.tokens_per_second),
        _plain(numbers.duration(train), train),
        _plain(numbers.duration(row.seconds), row.seconds),
        Cell(
            f"{len(row.finished)}/{len(row.runs)}" if row.failures else str(len(row.finished)),
            len(row.finished),
        ),
    ]
    return tuple(cells)


def _plain(text: str, value: float | None) -> Cell:
    return unknown() if value is None else Cell(text, value)


def score_cell(scoring: Scoring, label: str) -> Cell:
    """A row's value with half its interval."""
    found = scoring.values.get(label)
    if found is None:
        return unknown()
    text = numbers.number(found.value)
    if found.low is not None and found.high is not None:
        text += f" ± {numbers.number((found.high - found.low) / 2, digits=2)}"
    elif found.standard_error is not None:
        text += f" (s.e. {numbers.number(found.standard_error, digits=2)})"
    return Cell(text, found.value)


def show_difference(scoring: Scoring, value: float, *, digits: int = 2) -> str:
    """A difference in the score's own terms: relative change, points of a share, or units."""
    if scoring.scale.relative:
        return numbers.percent(value, signed=True, digits=digits)
    if scoring.scale.share:
        return numbers.number(value * 100, signed=True, digits=3) + " points"
    return numbers.number(value, signed=True, digits=3)


def show_limit(scoring: Scoring, value: float) -> str:
    """A margin or limit as the user would write it."""
    if scoring.scale.relative:
        return f"{value * 100:.4g} %"
    if scoring.scale.share:
        return f"{value * 100:.4g} point" + ("" if value == 0.01 else "s")
    return f"{value:.4g}"


def difference_cell(scoring: Scoring, difference: Difference | None) -> Cell:
    """Difference from the reference and its interval."""
    if difference is None:
        return unknown()
    low = show_difference(scoring, difference.low)
    high = show_difference(scoring, difference.high)
    text = f"{show_difference(scoring, difference.estimate)} [{low}, {high}]"
    return Cell(text, difference.estimate)


def verdict_cell(evidence: Evidence, row: Row, difference: Difference | None) -> Cell:
    """What the comparison says, or how the run ended."""
    if not row.finished:
        return Cell(ending(row.runs[-1].record), "zz", "bad")
    if row.label == evidence.reference:
        return Cell("reference", "a", "muted")
    if difference is not None:
        return Cell(difference.verdict, difference.verdict, TONES[difference.verdict])
    excluded = evidence.main.excluded.get(row.label) if evidence.main else None
    return Cell(f"not compared: {excluded}" if excluded else "not compared", "y", "muted")


def ending(record: RunRecord) -> str:
    """How a run that did not end well ended, with the phase it happened in."""
    names = {"oom": "out of memory"}
    status = names.get(record.status, record.status)
    phase = record.problem.phase if record.problem else None
    return f"{status} in {phase}" if phase else status


def _change(scoring: Scoring, row: Row) -> Cell:
    """Change of the main score by training, from the same weights before it."""
    ratios = []
    for record in row.finished:
        after = scoring.key.find(record)
        before = record.score(scoring.key.task, scoring.key.metric, "before", scoring.key.precision)
        if after is None or before is None or not row.plan.trains:
            continue
        if scoring.scale.relative:
            ratios.append(after.value / before.value - 1)
        else:
            ratios.append(after.value - before.value)
    if not ratios:
        return unknown()
    mean = sum(ratios) / len(ratios)
    return Cell(show_difference(scoring, mean), mean)
