"""Page: a study's answer and what it rests on, as sections of a report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import numbers
from harness.report.blocks import (
    Block,
    Caveat,
    Cell,
    Column,
    Figure,
    Section,
    Table,
    Tone,
    prose,
    strong,
    unknown,
)
from harness.report.families import family_key, family_mark, family_place
from harness.report.figures.canvas import Axis, Drawing, Mark
from harness.report.figures.lines import Curves, Line
from harness.report.figures.multiples import Multiples
from harness.report.figures.rates import X, rate_line, rate_panels
from harness.report.ranking import packed_base
from harness.report.rows import COLOURS
from harness.studies.agenda import Agenda, Standing
from harness.studies.answer import StudyAnswer, answer, reason, seeds_of, shown, value_of
from harness.studies.arms import Arm
from harness.studies.search import Search
from harness.studies.steering import Steering
from harness.studies.versions import mixture

TONES: dict[str, Tone] = {"better": "good", "worse": "bad", "undecided": "muted"}
MOST_CURVES = 8  # in one plane; more are drawn in panels of their own
MOST_PANELS = 40
SHARED_ERROR = (
    "Error is shared between looks by Lan and DeMets's spending function and evenly between "
    "variants (Bonferroni): each keeps its share for the whole study, whatever is concluded about "
    "the others. Nine tenths are planned, one tenth is kept for decisions taken while the study "
    "runs. Conclusions at default settings are a family of their own."
)


@dataclass(frozen=True)
class StudyPage:
    """A report as data, in the form that :func:`harness.report.write.write_report` writes."""

    title: str
    sections: tuple[Section, ...]


def make_page(agenda: Agenda, steering: Steering) -> StudyPage:
    """The page of a study as it stands: also of one that is not finished."""
    study = agenda.comparison.study
    found = answer(agenda)
    sections = [
        _answer_section(
            study.question, found, packed_base(arm.plan for arm in agenda.comparison.arms)
        ),
        _variants_section(agenda),
        _rates_section(agenda),
        _protocol_section(agenda, steering),
    ]
    title = f"Study: {study.name.partition('+')[0]}"
    return StudyPage(title, tuple(section for section in sections if section is not None))


def _answer_section(question: str, found: StudyAnswer, packed: str) -> Section:
    blocks: list[Block] = [prose(strong(question))]
    if found.state == "partial":
        blocks.append(Caveat("This study is not finished: what follows is an interim answer."))
    blocks += [prose(text, bullet=True) for text in found.conclusions]
    blocks.append(prose(strong("How sure: "), " ".join(found.sureness)))
    blocks.append(prose(strong("What it cost: "), found.cost))
    if packed:
        blocks.append(Caveat(packed))
    if found.changes:
        blocks.append(prose(strong("What would change this answer:")))
        blocks += [prose(text, bullet=True) for text in found.changes]
    return Section("answer", "Answer", tuple(blocks))


def _variants_section(agenda: Agenda) -> Section:
    columns = [Column("variant", number=False)]
    for standing in agenda.standings.values():
        name = standing.setting
        columns += [
            Column(f"{name} rate"),
            Column(f"{standing.key.title} at {name}"),
            Column(f"difference at {name}"),
            Column(f"verdict at {name}, seeds", number=False),
        ]
    rows = tuple(
        (
            Cell(arm.label, arm.label, style="code"),
            *(
                cell
                for standing in agenda.standings.values()
                for cell in _cells(agenda, standing, arm.label)
            ),
        )
        for arm in agenda.comparison.arms
    )
    caption = (
        f"Differences from {agenda.comparison.reference}, each in the same setting, with "
        "intervals that hold at all looks. A score is the mean over all runs of a variant, the "
        "geometric one where ratios are compared; a "
        "difference is over the seeds that both sides have, as many as stand beside its verdict. "
        "Default: the rate of the variant's own file. Best: the rate with the least loss on the "
        "validation split."
    )
    blocks: list[Block] = [Table("variants", tuple(columns), rows, caption)]
    blocks += [prose(text) for text in _what_tuning_changes(agenda)]
    return Section("variants", "Every variant at its default and at its best", tuple(blocks))


def _cells(agenda: Agenda, standing: Standing, label: str) -> Iterator[Cell]:
    yield _rate_cell(standing.rates.get(label), agenda.comparison.by_label[label])
    value = value_of(standing, label)
    yield unknown() if value is None else Cell(numbers.number(value), value)
    found = standing.conclusion(label)
    count = len(standing.runs.get(label, ()))
    seeds = f", {count}\N{NO-BREAK SPACE}seed" + ("s" if count != 1 else "")
    if label == agenda.comparison.reference:
        yield Cell("reference", 0, "muted")
        yield Cell(f"reference{seeds}", "", "muted")
    elif found is None or found.difference is None:
        yield _so_far(standing, value, value_of(standing, agenda.comparison.reference))
        why = "" if found is None else reason(found)
        yield Cell(f"{why}{seeds}".removeprefix(", "), why, "muted")
    else:
        word = found.difference.verdict
        pairs = seeds_of(found).replace(" ", "\N{NO-BREAK SPACE}")
        limit = f" ({reason(found)})" if found.limit and not found.decided else ""
        yield Cell(shown(standing, found.difference), found.difference.estimate)
        yield Cell(f"{word}{limit}, {pairs}", word, TONES.get(word, ""))


def _so_far(standing: Standing, value: float | None, reference: float | None) -> Cell:
    """A difference that no look has judged yet, where the score is compared by ratios."""
    if value is None or reference is None or standing.scale is None or not standing.scale.relative:
        return unknown()
    ratio = value / reference - 1
    return Cell(f"{numbers.percent(ratio, signed=True)} so far", ratio, "muted")


def _rate_cell(rate: float | None, arm: Arm) -> Cell:
    if not arm.trains:
        return Cell("not trained", None, "muted")
    return Cell("not tuned", None, "muted") if rate is None else Cell(f"{rate:g}", rate)


def _what_tuning_changes(agenda: Agenda) -> Iterator[str]:
    """Which conclusions are others once every variant has its own rate."""
    default, best = agenda.standings.get("default"), agenda.standings.get("best")
    if default is None or best is None:
        return
    found = {
        arm.label: (before, after)
        for arm in agenda.comparison.arms
        if (before := default.conclusion(arm.label)) and (after := best.conclusion(arm.label))
    }
    decided = {
        label: tuple(one.difference.verdict for one in both if one.difference)
        for label, both in found.items()
        if all(one.decided for one in both)
    }
    changed = [
        f"{label} ({before} at the default, {after} at its best)"
        for label, (before, after) in decided.items()
        if before != after
    ]
    if changed:
        yield "Tuning changes the conclusion about " + "; ".join(changed) + "."
    elif len(decided) == len(found):
        yield "Tuning changes no conclusion."
    else:
        yield "Where both are decided, tuning changes no conclusion."
    if len(decided) < len(found):
        others = ", ".join(label for label in found if label not in decided)
        yield f"Not decided at the default, at the best, or at either: {others}."


def _rates_section(agenda: Agenda) -> Section | None:
    searches = {label: found for label, found in agenda.searches.items() if found.trials}
    if not searches:
        return None
    tune = agenda.comparison.study.tune
    text = (
        f"Every trained variant was tried at {tune.trials} learning rates"
        f"{f' over {tune.rungs} rungs of successive halving' if tune.rungs > 1 else ''}, scored on "
        "the validation split only; the held-out split takes no part in any choice."
    )
    blocks: list[Block] = [prose(text)]
    blocks += [prose(line) for line in _widened(searches)]
    drawn = _curves(agenda, searches)
    if drawn:
        alt = "Validation perplexity by learning rate: " + "; ".join(
            f"{label} best at {found.best:g}" for label, found in searches.items() if found.best
        )
        reference = agenda.comparison.study.reference
        drawing = _rates_drawing(agenda, drawn)
        caption = "Validation perplexity by learning rate"
        if isinstance(drawing, Multiples):
            caption += f"; the curve of {reference} is grey in every panel"
            if len(drawing.lines) < len(drawn):
                caption += f"; the best {len(drawing.lines)} of {len(drawn)} are drawn"
        blocks.append(Figure("rates", caption, alt, drawing))
    blocks.append(_trials_table(searches))
    return Section("rates", "Quality by learning rate", tuple(blocks))


def _curves(agenda: Agenda, searches: Mapping[str, Search]) -> list[Line]:
    """The curve of each search that has one: few in colours of their own, many in families'."""
    tried = {
        label: [(trial.rate, trial.loss) for trial in found.curve]
        for label, found in searches.items()
    }
    known = [label for label in tried if any(math.isfinite(loss) for _, loss in tried[label])]
    if len(known) <= MOST_CURVES:
        marks = {label: Mark(index % COLOURS, 0) for index, label in enumerate(searches)}
        return [rate_line(label, marks[label], tried[label]) for label in known]
    plans = {label: agenda.comparison.by_label[label].plan for label in known}
    reference = agenda.comparison.study.reference
    known.sort(key=lambda label: (label != reference, *family_place(plans[label])))
    return [rate_line(label, family_mark(plans[label]), tried[label]) for label in known]


def _rates_drawing(agenda: Agenda, drawn: Sequence[Line]) -> Drawing:
    """Curves in one plane, or in panels where they are too many to be told apart.

    Of very many the best have panels, and the reference.
    """
    if len(drawn) <= MOST_CURVES:
        return Curves(X, Axis("validation perplexity", "lower"), tuple(drawn), marked=True)
    reference = agenda.comparison.study.reference
    best = sorted(drawn, key=lambda line: (line.label != reference, min(line.y)))[:MOST_PANELS]
    kept = [line for line in drawn if line in best]
    key = family_key(agenda.comparison.by_label[line.label].plan for line in kept)
    return rate_panels(kept, reference, key=key)


def _widened(searches: dict[str, Search]) -> Iterator[str]:
    """Whose best rate lay at the edge of the grid, and whether it still does."""
    for edge, end in ((False, "it then lay inside"), (True, "it is still at the edge")):
        found = {
            name: one for name, one in searches.items() if one.widened and bool(one.edge) == edge
        }
        if found:
            tried = ", ".join(
                f"{name} ({', '.join(f'{rate:g}' for rate in one.widened)})"
                for name, one in found.items()
            )
            yield f"The best rate lay at the edge, so one beyond it was tried, and {end}: {tried}."


def _trials_table(searches: dict[str, Search]) -> Table:
    columns = (
        Column("variant", number=False),
        Column("learning rate"),
        Column("share of the budget"),
        Column("validation perplexity"),
        Column("", number=False),
    )
    rows = []
    for label, found in searches.items():
        for trial in sorted(found.trials, key=lambda one: (one.share, one.rate)):
            fine = trial.loss < math.inf
            value = Cell(numbers.number(math.exp(trial.loss)), trial.loss) if fine else None
            chosen = trial.rate == found.best and trial.share >= 1
            default = "default" if trial.rate == found.default else ""
            words = ", ".join(filter(None, ("best" if chosen else "", default)))
            rows.append(
                (
                    Cell(label, label, style="code"),
                    Cell(f"{trial.rate:g}", trial.rate),
                    Cell(f"{trial.share:.3g}", trial.share),
                    value or Cell("failed or diverged", None, "bad"),
                    Cell(words, words),
                )
            )
    return Table("trials", columns, tuple(rows), "All trials, one seed each.")


def _protocol_section(agenda: Agenda, steering: Steering) -> Section:
    study = agenda.comparison.study
    seeds = study.seeds
    rule = (
        f"{seeds.least} to {seeds.most} seeds, until a comparison is decided"
        if seeds.stop == "decided"
        else f"{seeds.stop} seeds for every variant"
    )
    lines = [
        f"Suite {Path(study.suite).stem}; margin {study.margin * 100:.3g} %; {rule}.",
        SHARED_ERROR,
        f"Trials use seed {study.tune.seed}, which no verdict uses.",
    ]
    blocks: list[Block] = [prose(line) for line in lines]
    if mixed := mixture(agenda):
        blocks.append(Caveat(mixed))
    if steering.decisions:
        blocks.append(prose(strong("Decisions while it ran:")))
        blocks += [
            prose(f"{item.time}: {item.kind.replace('_', ' ')} {item.value}", bullet=True)
            for item in steering.decisions
        ]
    looks = {name: standing.following.looks for name, standing in agenda.standings.items()}
    told = "; ".join(
        f"{name}: {', '.join(map(str, counts)) or 'none yet'}" for name, counts in looks.items()
    )
    blocks.append(prose(f"Looks so far, by seeds: {told}."))
    return Section("protocol", "How it was done", tuple(blocks))
