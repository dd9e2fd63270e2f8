"""Study tables: how far a study is, and what it will need, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from harness import numbers

if TYPE_CHECKING:
    from harness.studies.agenda import Agenda
    from harness.studies.outlook import Range, Seconds, Stage
    from harness.studies.under_way import UnderWay

UNPREDICTED = "not predicted"


def status_table(agenda: Agenda) -> Table:
    """How far every variant is: trials, the rate they chose, seeds and what they say so far."""
    table = Table("variant", "trials", "best rate", title_justify="left")
    for setting in agenda.standings:
        table.add_column(f"seeds at {setting}")
        table.add_column(f"verdict at {setting}")
    for arm in agenda.comparison.arms:
        found = agenda.searches[arm.label]
        tried = len(found.trials) + len(found.missing)
        cells = [f"{len(found.trials)} of {tried}" if tried else "not tuned"]
        cells.append(f"{found.best:g}" if found.best is not None and arm.trains else "")
        for standing in agenda.standings.values():
            known = standing.conclusion(arm.label)
            verdict: str = known.difference.verdict if known and known.difference else ""
            if arm.label == agenda.comparison.reference:
                verdict = "reference"
            cells += [str(len(standing.runs[arm.label])), verdict]
        table.add_row(Text(arm.label), *cells)
    return table


def under_way_table(found: Sequence[UnderWay]) -> Table:
    """The runs that are under way, in whichever terminal or on whichever machine."""
    table = Table("under way", title_justify="left")
    for title in ("rate", "seed", "phase", "", "loss"):
        table.add_column(title)
    for run in found:
        plan = run.job.plan
        table.add_row(
            Text(run.job.arm),
            f"{run.job.rate:g}" if plan.trains else "",
            f"{plan.seed}, {'trial' if run.job.stage == 'tune' else 'verdict'}",
            run.phase,
            f"{run.done:,} of {run.total:,}" if run.total else "",
            "" if run.loss is None else f"{run.loss:.4g}",
        )
    return table


def plan_table(stages: list[Stage]) -> Table:
    """Runs, time, energy and memory of every stage; of all runs, those done included."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, title_justify="left")
    table.add_column("stage", no_wrap=True)
    for title in ("runs", "done", "run time", "energy", "memory\nof a run"):
        table.add_column(title, justify="right", no_wrap=True)
    for stage in stages:
        table.add_row(
            stage.name,
            _between(*(f"{count:,}" for count in stage.runs)),
            f"{stage.done:,}",
            _amount(stage.seconds, numbers.duration),
            _amount(stage.joules, numbers.energy),
            UNPREDICTED if stage.memory is None else numbers.size(stage.memory),
        )
    table.add_section()
    table.add_row(
        "all",
        _between(*(f"{sum(stage.runs[end] for stage in stages):,}" for end in (0, 1))),
        f"{sum(stage.done for stage in stages):,}",
        _amount(_sum([stage.seconds for stage in stages]), numbers.duration),
        _amount(_sum([stage.joules for stage in stages]), numbers.energy),
        "",
    )
    return table


def plan_remarks(agenda: Agenda, peak_share: float = 0.0) -> Iterator[str]:
    """What the table rests on, and what the budget makes of it."""
    from harness.studies.budget import HOUR, said_hours

    device = agenda.comparison.arms[0].plan.device
    rests = (
        f"training alone, at {numbers.percent(peak_share, digits=0)} of the peak of {device.name}"
        if peak_share
        else "from runs of this study, or training alone of the latest run of the same kind on "
        f"{device.name}"
    )
    yield (
        "At least: every comparison is decided at the first look. Time and energy: "
        f"{rests}. All runs one after the other."
    )
    budget = agenda.comparison.study.budget
    if budget.hours is not None:
        used = (agenda.spent.seconds + agenda.spent.begun) / HOUR
        yield f"Budget: {said_hours(budget)} of run time, {used:.2f} of them used."
    if budget.runs is not None:
        yield f"Budget: {budget.runs} runs, {agenda.spent.runs} of them used."


def budget_lines(agenda: Agenda, tell: Seconds) -> Iterator[str]:
    """What the hours of a budget buy here, and if that is no answer, which settings bring one.

    By the runs of the study; ``tell`` says how long a run takes of which the study has none.
    """
    from harness.forecast.arithmetic import least_training_seconds
    from harness.studies.fitting import measured, said_fit
    from harness.studies.reach import reach, said_least, said_reach

    if agenda.comparison.study.budget.hours is None:
        return
    found = reach(agenda, tell)
    yield from said_reach(agenda, found)
    if found is None:
        yield from said_least(agenda, reach(agenda, least_training_seconds))
    if found is not None and not found.answers:
        yield from said_fit(agenda, measured(agenda))


def _sum(ranges: list[Range | None]) -> Range | None:
    known = [found for found in ranges if found is not None]
    if len(known) < len(ranges):
        return None
    return sum(found[0] for found in known), sum(found[1] for found in known)


def _amount(found: Range | None, write: Callable[[float | None], str]) -> str:
    return UNPREDICTED if found is None else between(found, write)


def between(found: Range, write: Callable[[float | None], str]) -> str:
    """At least and at most, once where they read the same."""
    return _between(write(found[0]), write(found[1]))


def _between(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"
