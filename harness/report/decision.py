"""Decision: what the recommended row costs against the runner-up, and what would change it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness import numbers
from harness.report.blocks import Block, Fact, Facts
from harness.report.cells import difference_text
from harness.report.evidence import Evidence
from harness.report.judging import make_difference
from harness.report.machines import same_machine
from harness.report.recommend import Recommendation
from harness.report.rows import DONE, PASSING, Row
from harness.report.scoring import Scoring
from harness.report.ties import CostOrder, memory_order, phase_time_order, speed_order

MANY_CHANGES = 3
SAME = "the same"
NEARLY_ALL = 0.9  # of the phase of training: then its time is that of the steps


def runner_up(evidence: Evidence, chosen: Row) -> Row | None:
    """The best other trained row, or the best other row where nothing else was trained."""
    if evidence.main is None:
        return None
    others = [evidence.by_label[label] for label in evidence.main.ordered()]
    others = [row for row in others if row is not chosen]
    trained = [row for row in others if row.plan.trains] or others
    budget = evidence.request.budget_memory_bytes
    if budget is not None:
        fitting = [row for row in trained if _is_within(evidence.peak(row), budget)]
        trained = fitting or trained
    return trained[0] if trained else None


def _is_within(peak: int | None, budget: int) -> bool:
    return peak is not None and peak <= budget


def price(evidence: Evidence, chosen: Row) -> list[Block]:
    """Quality, memory, speed, time and bytes to ship of a row, each beside the runner-up's."""
    other = runner_up(evidence, chosen)
    beside = other if other is not None and same_machine(chosen, other) else None
    facts = [
        _quality(evidence, chosen, other),
        _memory(evidence, chosen, beside),
        _speed(evidence, chosen, beside),
        _time(evidence, chosen, beside),
        _fact("bytes to ship", chosen, other, shipped_bytes, numbers.size),
    ]
    title = "Price" if other is None else f"Compared with the runner-up, {other.label}"
    known = tuple(fact for fact in facts if fact is not None)
    return [Facts(title, known)] if known else []


def shipped_bytes(row: Row) -> int | None:
    """What a user of the trained model needs beside the base: the adapter, or all weights."""
    if row.plan.method == "none":
        return None
    kept = row.median(lambda record: record.adapter_bytes)
    if kept is not None:
        return int(kept)
    return row.weight_bytes if row.plan.method == "full" else None


def _quality(evidence: Evidence, chosen: Row, other: Row | None) -> Fact | None:
    main = evidence.main
    if main is None or chosen.label not in main.values:
        return None
    value = numbers.number(main.values[chosen.label].value)
    if other is None:
        return Fact(main.key.title, value)
    theirs = numbers.number(main.values[other.label].value)
    note = f"runner-up {theirs}"
    effect = main.sample.paired(chosen.label, other.label) if main.sample else None
    if effect is not None:
        found = make_difference(chosen.label, effect, None, main.scale)
        kind = "paired" if found.low is None else "paired, 95 % interval"
        note = f"{difference_text(main, found)} against the runner-up's {theirs} ({kind})"
    return Fact(main.key.title, value, note)


def _memory(evidence: Evidence, chosen: Row, other: Row | None) -> Fact | None:
    kind = evidence.measures[chosen.label]
    fact = _fact("peak memory", chosen, other, lambda row: row.peak_bytes(kind), numbers.size)
    fact = _tied(fact, memory_order(evidence.beside(chosen), kind), chosen, other)
    if fact is None:
        return None
    return replace(fact, note="; ".join(filter(None, (fact.note, _set_by(kind, chosen, other)))))


def _set_by(kind: str, chosen: Row, other: Row | None) -> str:
    """Which of the peaks another phase than training sets, in words; empty where none."""
    phases = [None if row is None else row.peak_phase(kind) for row in (chosen, other)]
    named = [DONE[phase] if phase in PASSING else "" for phase in phases]
    if named[0] and named[0] == named[1]:
        return f"{named[0]}, not training, sets both"
    texts = [f"{named[0]} sets it"] if named[0] else []
    texts += [f"{named[1]} sets the runner-up's"] if named[1] else []
    return ", ".join(texts)


def _time(evidence: Evidence, chosen: Row, other: Row | None) -> Fact | None:
    """The whole phase; where much of it is no step, the steps alone, which longer runs repeat."""
    order = phase_time_order(evidence.beside(chosen))
    fact = _tied(
        _fact("training time", chosen, other, order.read, numbers.duration), order, chosen, other
    )
    rows = [chosen] if other is None or not other.plan.trains else [chosen, other]
    parts = [(row.step_seconds, row.training_seconds) for row in rows]
    shares = [steps / whole for steps, whole in parts if steps and whole]
    if fact is None or len(shares) < len(rows) or min(shares) >= NEARLY_ALL:
        return fact
    steps = " against ".join(numbers.duration(own) for own, _ in parts)
    note = f"the steps alone {steps}, the rest is compiling and set-up, once in a run"
    return replace(fact, note="; ".join(filter(None, (fact.note, note))))


def _speed(evidence: Evidence, chosen: Row, other: Row | None) -> Fact | None:
    order = speed_order(evidence.beside(chosen))
    fact = _fact("training speed", chosen, other, order.read, show_speed)
    return _tied(fact, order, chosen, other)


def show_speed(value: float | None) -> str:
    """Tokens per second, as finely as the ranking shows them."""
    return f"{numbers.number(value, digits=3)} tokens/s"


def _tied(fact: Fact | None, order: CostOrder, chosen: Row, other: Row | None) -> Fact | None:
    """The fact, with a word where repeated runs of one row differ as much."""
    if fact is None or other is None or fact.note.endswith(SAME) or not order.tied(chosen, other):
        return fact
    return Fact(fact.title, fact.value, f"{fact.note}; a tie: repeated runs differ by as much")


def _fact(
    title: str,
    chosen: Row,
    other: Row | None,
    read: Callable[[Row], float | None],
    show: Callable[[float | None], str],
) -> Fact | None:
    """One cost, with the runner-up's and the relative change where both are known."""
    own = read(chosen)
    if own is None:
        return None
    theirs = None if other is None else read(other)
    if not theirs:
        return Fact(title, show(own))
    change = numbers.percent(own / theirs - 1, signed=True, digits=0)
    if show(own) == show(theirs):
        return Fact(title, show(own), f"runner-up {show(theirs)}; {SAME}")
    return Fact(title, show(own), f"{change} against the runner-up's {show(theirs)}")


def what_would_change(evidence: Evidence, found: Recommendation | None) -> list[str]:
    """What a reader could learn or ask that may lead to another recommendation."""
    main = evidence.main
    if main is None or found is None or found.row is None:
        return []
    chosen = found.row
    texts = []
    rivals = [label for label in found.rivals if evidence.by_label[label].plan.trains]
    if rivals:
        texts.append(_of_rivals(evidence, found, rivals))
    texts += _without_training(evidence, chosen)
    smaller = _smaller(evidence, chosen)
    if smaller is not None:
        texts.append(smaller)
    texts += _other_scores(evidence, chosen)
    return texts


def _of_rivals(evidence: Evidence, found: Recommendation, rivals: list[str]) -> str:
    """What would choose one of the rows that may be the best."""
    named = numbers.some_of(rivals, MANY_CHANGES)
    if not found.beaten:
        more = "more seeds or items may show one of them to be better"
        return f"{named} may be as good or better: {more}."
    option = "--margin" if evidence.request.max_loss is None else "--max-loss"
    which = named if len(rivals) == 1 else f"One of {named}"
    return f"{which} is better (95 % confidence): a smaller {option} may choose it."


def _without_training(evidence: Evidence, chosen: Row) -> list[str]:
    """Says so where an untrained model ranks above all other trained ones, or above all."""
    main, other = evidence.main, runner_up(evidence, chosen)
    bases = [] if main is None else [evidence.by_label[label] for label in main.ordered()]
    base = next((row for row in bases if not row.plan.trains), None)
    if main is None or base is None or base is chosen or not chosen.plan.trains:
        return []
    place = bases.index
    name = f"{base.label}, untrained ({main.key.title} {numbers.number(_value(main, base))})"
    if place(base) < place(chosen):
        return [f"No training at all: {name}, scores better in these runs."]
    if other is not None and other.plan.trains and place(base) < place(other):
        text = f"{name}, ranks above every other trained variant."
        return [f"If the gain from training is not worth its cost: {text}"]
    return []


def _value(main: Scoring, row: Row) -> float:
    return main.values[row.label].value


def _smaller(evidence: Evidence, chosen: Row) -> str | None:
    """The best trained row that needs less memory, with the limit at which it would be chosen."""
    main, kind = evidence.main, evidence.measures[chosen.label]
    own = chosen.peak_bytes(kind)
    if main is None or own is None:
        return None
    order = memory_order(evidence.beside(chosen), kind)
    for label in main.ordered():
        row = evidence.by_label[label]
        peak = row.peak_bytes(kind)
        if row is chosen or not row.plan.trains or not same_machine(row, chosen):
            continue
        if peak is None or order.tied(row, chosen):
            continue
        if peak < own:
            return (
                f"A memory limit below {numbers.size(own)} (--budget-memory): {label} is the "
                f"best of those that need less, {numbers.size(peak)}."
            )
    return None


def _other_scores(evidence: Evidence, chosen: Row) -> list[str]:
    """Secondary headline scores on which another trained row is shown to be better."""
    texts = []
    for scoring in evidence.scorings[1:]:
        if not scoring.headline or chosen.label != evidence.reference:
            continue
        better = [
            label
            for label, found in scoring.differences.items()
            if found.verdict == "better" and evidence.by_label[label].plan.trains
        ]
        if better:
            texts.append(f"Another primary score: {better[0]} is better on {scoring.key.title}.")
    return texts[:MANY_CHANGES]
