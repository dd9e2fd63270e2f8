"""About: what the findings rest on: model, data, search, seeds, scores, A/A check and cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from pydantic import Field

from harness import numbers
from harness.records.corpus_result import CorpusResult, FunnelRow
from harness.records.record import RunRecord
from harness.records.store import StoredRun
from harness.records.validation import is_trial
from harness.report.blocks import Block, Section, code, prose, strong
from harness.report.claims.ground import Ground
from harness.report.claims.overview import MARGIN, QUALITY, REFERENCES
from harness.report.pairing import ScoreKey, read_items
from harness.report.repeatability import FEWEST_SEEDS, describe_check
from harness.report.rows import Row
from harness.report.sample import Sample, make_sample, make_scale
from harness.spec.schema import Frozen

MINUTE, KILOWATT_HOUR = 60.0, 3.6e6


class MachineUse(Frozen):
    """What records do not say of the machine: how many GPUs it had, and a meter beside the runs."""

    gpus: int = Field(default=1, ge=1)
    kwh: float | None = Field(default=None, gt=0, description="of all GPUs, by their own meter")


def about_section(
    ground: Ground, runs: Sequence[StoredRun], spent: MachineUse, told: Sequence[str] = ()
) -> Section:
    """What the verdicts of the largest ground rest on; ``told`` are paragraphs of the author's."""
    arms = sorted(ground.arms.values(), key=lambda arm: arm.name not in REFERENCES)
    rows = [row for arm in arms for row in arm.rows]
    records = [run.record for run in runs]
    parts = {
        "Model": _model(ground, rows),
        "Data": _data(rows),
        "Training": _training(rows),
        "Search": _search(ground),
        "Seeds": _seeds(rows),
        "Scores": _scores(rows),
        "Check": describe_check(_repeated(rows)),
        "Cost": _cost(records, spent),
    }
    blocks: list[Block] = [
        prose(strong(f"{name}. "), text, bullet=True) for name, text in parts.items() if text
    ]
    return Section("runs", "What this rests on", (*map(_paragraph, told), *blocks))


def _paragraph(text: str) -> Block:
    """The author's words; what stands between backticks is code."""
    parts = text.split("`")
    return prose(*(code(part) if place % 2 else part for place, part in enumerate(parts)))


def _model(ground: Ground, rows: Sequence[Row]) -> str:
    size = "" if ground.billions is None else f", {ground.billions:.3g} billion parameters"
    return f"{rows[0].plan.model.description}{size}." if rows else ""


def _data(rows: Sequence[Row]) -> str:
    found = next((one.corpus for row in rows for one in row.finished if one.corpus), None)
    if found is None:
        return ""
    trees = found.funnel[0].trees if found.funnel else None
    sides = {row.step: row.trees for row in found.funnel}
    return (
        f"{found.name}: {numbers.count(_trained_on(found))} conversations"
        f"{_of_trees(sides.get('training'))} to train on, "
        f"{numbers.count(found.validation_conversations)} to choose learning rates by, "
        f"{numbers.count(found.held_out_conversations)}{_of_trees(sides.get('held out'))} held out "
        "for the verdicts; no message tree"
        + (f" of the {numbers.count(trees)}" if trees else "")
        + f" is on two sides.{_shortened(found)}"
    )


def _of_trees(trees: int | None) -> str:
    return f" of {numbers.count(trees)} trees" if trees else ""


def _rows_step(corpus: CorpusResult) -> FunnelRow | None:
    """The step of the funnel that makes rows, where what does not fit is cut or dropped."""
    return next((row for row in corpus.funnel if row.step == "sequence length"), None)


def _trained_on(corpus: CorpusResult) -> int:
    """Conversations that are left once those without a reply in a row are dropped."""
    step = _rows_step(corpus)
    return corpus.train_conversations if step is None else step.conversations or 0


def _shortened(corpus: CorpusResult) -> str:
    step = _rows_step(corpus)
    return f" To fit the rows: {step.removed}." if step is not None and step.removed else ""


def _training(rows: Sequence[Row]) -> str:
    found = [
        one
        for row in rows
        for one in row.finished
        if one.plan.trains and one.training and one.corpus
    ]
    if not found or found[0].training is None or found[0].corpus is None:
        return ""
    plan, training = found[0].plan, found[0].training
    tokens = [one.training.tokens.non_padding for one in found if one.training]
    steps = [one.training.steps for one in found if one.training]
    seen = training.steps * plan.budget.batch_size / max(1, _trained_on(found[0].corpus))
    packed = " (or packed rows)" if any(one.plan.training.packing for one in found) else ""
    longest = sorted({one.plan.training.sequence_length for one in found})
    lengths = " or ".join(map(numbers.count, longest))
    return (
        f"{_span(tokens)} tokens a run, in {_span(steps)} steps of "
        f"{plan.budget.batch_size} conversations{packed}, each seen {seen:.1f} times on average; "
        f"rows of at most {lengths} tokens, {plan.training.schedule} schedule."
    )


def _search(ground: Ground) -> str:
    tried = [len(arm.rates) for arm in ground.arms.values() if arm.rates]
    if not tried:
        return "None: every variant ran at the learning rate of its file."
    return (
        f"{len(tried)} trained variants, each at its own {_span(tried)} learning rates with one "
        "seed, chosen by the validation split alone."
    )


def _seeds(rows: Sequence[Row]) -> str:
    seeds = [len(row.seeds) for row in rows if row.plan.trains]
    return f"{_span(seeds)} of every trained variant and rate." if seeds else ""


def _scores(rows: Sequence[Row]) -> str:
    """Every score of the runs with how many items it has, the commonest first."""
    items: dict[str, int] = {}
    for row in rows:
        for record in row.finished:
            for score in record.scores:
                if score.stage == "after" and score.headline:
                    key = ScoreKey(score.task, score.metric, score.precision)
                    items.setdefault(key.title, score.n)
    return ", ".join(f"{name} ({numbers.count(n)})" for name, n in items.items()) + "."


def _repeated(rows: Sequence[Row]) -> Sample | None:
    """The runs of all variants with seeds enough to be compared with themselves."""
    known = [row for row in rows if row.plan.trains and len(row.seeds) >= FEWEST_SEEDS]
    known = [replace(row, label=f"{row.label} #{place}") for place, row in enumerate(known)]
    aligned = read_items(known, QUALITY).aligned if known else None
    if aligned is None:
        return None
    scores = [found for row in known for one in row.finished if (found := QUALITY.find(one))]
    return make_sample(aligned, make_scale(scores, MARGIN))


def _cost(records: Sequence[RunRecord], spent: MachineUse) -> str:
    """Runs, the time in which any was under way, and energy; an upper bound where none is known."""
    failed = sum(record.status != "ok" for record in records)
    trials = sum(map(is_trial, records))
    wall, most = _under_way(records)
    device = records[0].plan.device
    gpus = f"{spent.gpus} × {device.name}" if device.kind == "cuda" else device.name
    text = (
        f"{numbers.count(len(records))} runs ({numbers.count(trials)} of them trials; "
        f"{failed or 'none'} failed), up to {most} at once on {gpus}; in all "
        f"{numbers.duration(sum(record.seconds for record in records))} of run time in "
        f"{numbers.duration(wall)} of a clock"
    )
    if device.kind != "cuda":
        return f"{text}."
    text += f": {wall * spent.gpus / MINUTE:.0f} GPU minutes"
    return f"{text}, {_energy(records, wall, spent)}."


def _energy(records: Sequence[RunRecord], wall: float, spent: MachineUse) -> str:
    if spent.kwh is not None:
        return f"{numbers.significant(spent.kwh, 2)} kWh by the GPUs' own meters"
    watts = next((e.gpu_power_limit_watts for r in records if (e := r.environment)), None)
    if watts is None:
        return "energy unknown"
    most = watts * spent.gpus * wall / KILOWATT_HOUR
    return f"at most {numbers.significant(most, 2)} kWh (at the power limit of {watts:.0f} W)"


def _under_way(records: Sequence[RunRecord]) -> tuple[float, int]:
    """Seconds of a clock in which any run was under way, and how many were at once."""
    ends = list(_ends(records))
    total, most, running, since = 0.0, 0, 0, 0.0
    for moment, change in sorted(ends):
        if running == 0:
            since = moment
        running += change
        most = max(most, running)
        if running == 0:
            total += moment - since
    return total, most


def _ends(records: Sequence[RunRecord]) -> Iterator[tuple[float, int]]:
    for record in records:
        start = datetime.fromisoformat(record.started_at).timestamp()
        yield start, 1
        yield start + max(record.seconds, 0.001), -1


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    texts = numbers.count(low), numbers.count(high)
    return texts[0] if low == high else " to ".join(texts)
