"""Check: what can be said about a plan's scores before any weights are loaded."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UnknownName
from harness.score.bundled import bundled_metrics, task_names
from harness.score.catalogue import asked_tasks, check_names, document_kinds, load_task
from harness.score.forgetting import read_pages
from harness.spec.plan import Plan
from harness.spec.plan_digests import is_task_file
from harness.spec.suite import ScoreSpec, Task


def check_asked(spec: ScoreSpec) -> None:
    """Refuse scores and tasks that there are not; reads names only, in about a second.

    Raises:
        UnknownName: no such score or task, with close matches.
        UserError: a task asked for twice, or a task file or folder that cannot be read.
    """
    if spec.also:
        from harness.score.take import wanted  # needs torch

        wanted(spec)
    check_names(spec)


def check_task_data(plan: Plan) -> None:
    """Refuse scores whose data cannot be read; loads the data of every task, but no weights.

    Tasks on documents of the corpus are looked up only: the corpus is prepared before it is
    scored.

    Raises:
        UnknownName: see :func:`check_asked`.
        UserError: a data set, configuration or split is missing or empty, or few-shot examples
            cannot be drawn.
    """
    spec = plan.score
    check_asked(spec)
    for task in asked_tasks(spec):
        _load(task, spec)
    if spec.forgetting:
        read_pages(_data(spec))


def check_own_tasks(spec: ScoreSpec) -> None:
    """Refuse a task file of one's own whose data cannot be had, or that lm-eval cannot build.

    Stock tasks are left alone: their data may have to be downloaded.

    Raises:
        UserError: as :func:`check_task_data` does.
    """
    for task in asked_tasks(spec):
        if is_task_file(task.name):
            _load(task, spec)


def check_primary(spec: ScoreSpec, primary: str) -> None:
    """Refuse a score that is to decide and that no run would take, as "task metric" or metric.

    What lm-eval's own tasks measure is known once they have run: with such a task any name passes.

    Raises:
        UnknownName: with the scores that runs would take.
    """
    from harness.score.take import OWN_METRICS, wanted  # needs torch

    tasks = [task.name for task in asked_tasks(spec)]
    if any(name not in task_names() for name in tasks):
        return
    pairs = [pair for name in wanted(spec) for pair in OWN_METRICS.get(name, ())]
    pairs += [(name, metric) for name in tasks for metric in bundled_metrics(name)]
    if any(primary in (f"{task} {metric}", metric) for task, metric in pairs):
        return
    known = [metric if task == "held_out" else f"{task} {metric}" for task, metric in pairs]
    raise UnknownName("score", primary, known, where="primary")


def _load(task: Task, spec: ScoreSpec) -> None:
    if not document_kinds(task, spec.include_path):
        with load_task(task, _data(spec), Path(), spec.include_path):
            pass


def _data(spec: ScoreSpec) -> Path | None:
    return None if spec.data_folder is None else Path(spec.data_folder)
