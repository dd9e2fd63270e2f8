"""Catalogue: lm-eval tasks by name or file, with their data from a folder or the hub."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UnknownName, UserError
from harness.score.bundled import TASKS, bundled_kinds, task_names
from harness.score.local_data import read_from
from harness.score.stock import declared_in, folders_around, is_whole, leaves, look_for
from harness.spec.storage import meant
from harness.spec.suite import ScoreSpec, Task


@dataclass(frozen=True)
class Loaded:
    """A task or group as lm-eval objects: what was asked for, and every leaf and group in it.

    ``name`` is lm-eval's; a task file of one's own is asked for by its path.
    """

    name: str
    manager: Any
    asked: list[Any]
    tasks: dict[str, Any]
    groups: dict[str, Any]


@dataclass(frozen=True)
class _Source:
    """Where a task comes from: lm-eval's name of it, and its folder; None for a stock one."""

    name: str
    folder: Path | None


@contextmanager
def load_task(
    task: Task, data_folder: Path | None, documents: Path, include_path: str | None = None
) -> Iterator[Loaded]:
    """Load a task, group or tag with its data.

    ``documents`` is where the documents of bundled tasks were written. Data sets found below
    ``data_folder`` as ``<org>/<name>`` are read from there. ``include_path`` is a folder with
    task files of one's own.

    Raises:
        UnknownName: no such task, with close matches.
        UserError: a data set, configuration or split is missing or empty, or few-shot examples
            would be drawn from the rows being scored, or a task file cannot be read.
    """
    source = _source(task.name, include_path)
    with tempfile.TemporaryDirectory() as scratch:
        manager = _manager(source, documents)
        if data_folder is not None and source.folder != TASKS:
            read_from(manager.task_index, source.name, data_folder, Path(scratch))
        try:
            found = manager.load([source.name])
        except IndexError as error:
            raise UserError(
                f"the split that task {task.name} scores is empty",
                where=data_folder or "the hub",
                expected="at least one row",
            ) from error
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise _missing_data(task.name, data_folder, error) from error
        tasks, groups = found["tasks"], dict(found.get("groups", {}))
        loaded = Loaded(source.name, manager, list(tasks.values()), tasks, groups)
        roots = [group for name, group in loaded.groups.items() if name == source.name]
        if roots:
            loaded = dataclasses.replace(loaded, asked=roots)
        for name, leaf in loaded.tasks.items():
            _check_fewshot(name, leaf, task, manager.task_index.get(name))
        yield loaded


def check_names(spec: ScoreSpec) -> None:
    """Refuse a task that there is not, or that is asked for twice. Reads names only, no data.

    Raises:
        UnknownName: no such task, with close matches.
        UserError: a task twice, or a task file that cannot be read.
    """
    for task in asked_tasks(spec):
        source = _source(task.name, spec.include_path)
        if source.folder is None:
            declared, mentioned = look_for(source.name)
            if not mentioned:
                raise UnknownName("task", source.name, [*declared, *task_names()])


def every_task() -> list[str]:
    """Names of all tasks and groups that can be asked for without a file of one's own."""
    declared, _ = look_for("")
    return sorted({*declared, *task_names()})


def document_kinds(task: Task, include_path: str | None) -> list[str]:
    """Kinds of documents that the harness makes for a task (see :mod:`harness.score.bundled`)."""
    source = _source(task.name, include_path)
    if source.folder is None:
        return []
    if source.folder == TASKS:
        return bundled_kinds(source.name)  # without lm-eval, whose import takes most of a second
    index = _manager(source, Path()).task_index
    configs = [index[leaf].cfg or {} for leaf in leaves(index, source.name) if leaf in index]
    settings = [config.get("dataset_kwargs") or {} for config in configs]
    return sorted({str(kwargs["kind"]) for kwargs in settings if "kind" in kwargs})


def _source(name: str, include_path: str | None) -> _Source:
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        declared = declared_in(path)
        if not declared:
            raise UserError("no task in this file", where=path, expected="a line task: NAME")
        _check_yaml(path)
        return _Source(declared[0], path.parent)
    if name in task_names():
        return _Source(name, TASKS)
    if include_path is None:
        return _Source(name, None)
    folder = Path(include_path)
    if not folder.is_dir():
        raise UserError(
            "no such folder",
            where=f"score.include_path = {folder}",
            expected="a folder with lm-eval task files",
            hint=meant(folder),
        )
    own = {found for path in folder.rglob("*.yaml") for found in declared_in(path)}
    return _Source(name, folder if name in own else None)


def _check_yaml(path: Path) -> None:
    """Refuse a file that is no YAML, which lm-eval would pass over."""
    import yaml

    try:
        yaml.compose(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"not a YAML file: {problem}", where=f"{path}{line}") from None


def _manager(source: _Source, documents: Path) -> Any:
    from lm_eval.tasks import TaskManager

    if source.folder is not None:
        return _own_manager(source, documents)
    name = source.name
    declared, mentioned = look_for(name)
    if not mentioned:
        raise UnknownName("task", name, [*declared, *task_names()])
    for folder in folders_around(declared.get(name)):
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        if is_whole(manager.task_index, name):
            return manager
    manager = TaskManager()
    if name not in manager.task_index:
        raise UnknownName("task", name, [*manager.all_tasks, *task_names()])
    return manager


def _own_manager(source: _Source, documents: Path) -> Any:
    """A manager of the tasks in a folder; stock tasks are read too if a group names any."""
    import yaml
    from lm_eval.tasks import TaskManager

    settings = {"include_path": str(source.folder), "metadata": {"documents": str(documents)}}
    try:
        manager = TaskManager(**settings, include_defaults=False)
        if not is_whole(manager.task_index, source.name):
            manager = TaskManager(**settings)
    except (yaml.YAMLError, OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"lm-eval cannot read the task files: {type(error).__name__}: {error}",
            where=source.folder,
        ) from error
    if source.name not in manager.task_index:
        raise UnknownName("task", source.name, list(manager.task_index), where=source.folder)
    return manager


def _check_fewshot(name: str, leaf: Any, task: Task, entry: Any) -> None:
    """Refuse few-shot examples where none are defined or they are rows being scored."""
    config = leaf.config
    shots = config.num_fewshot if task.num_fewshot is None else task.num_fewshot
    if config.num_fewshot == 0 and task.num_fewshot:
        raise UserError(
            f"{task.num_fewshot} few-shot examples asked of {name}, which is fixed at none",
            hint="leave num_fewshot out",
        )
    settings = config.fewshot_config
    if not shots or getattr(settings, "samples", None) is not None:
        return
    wanted = getattr(settings, "split", None)
    scored = config.test_split or config.validation_split
    source = wanted or config.training_split or config.validation_split or config.test_split
    stock = (entry.cfg or {}) if entry is not None else {}
    there = {str(split) for split in leaf.dataset}
    if source is None or source not in there:
        reason = f"the split {source!r} for them is missing"
    elif source == scored and stock.get("fewshot_split") != source:
        reason = f"they would be drawn from {scored!r}, the rows being scored"
    else:
        return
    raise UserError(
        f"{shots} few-shot examples asked of {name}, but {reason}",
        where=config.dataset_path,
        expected=f"a split to draw examples from, beside {', '.join(sorted(there))}",
        hint="num_fewshot = 0, or add the data set's training split to the folder",
    )


def _missing_data(name: str, data_folder: Path | None, error: Exception) -> UserError:
    where = "the hub" if data_folder is None else f"{data_folder} or the hub"
    return UserError(
        f"the data of task {name} cannot be read: {type(error).__name__}: {error}",
        where=where,
        expected="the data set with the configuration and splits that the task names",
        hint="put a copy at <data folder>/<org>/<name> and name the folder with --data-folder, "
        "or go online",
    )


def asked_tasks(spec: ScoreSpec) -> list[Task]:
    """The suite's tasks, with the preference task where it is asked for.

    Raises:
        UserError: one is asked for twice.
    """
    tasks = list(spec.tasks)
    if spec.preference and "preference" not in [task.name for task in tasks]:
        tasks.append(Task(name="preference"))
    names_of(tasks)
    return tasks


def names_of(tasks: Iterable[Task]) -> list[str]:
    """Task names; raises UserError when one is asked for twice."""
    names = [task.name for task in tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"task {twice[0]} is asked for twice",
            hint="put different few-shot settings in different suites",
        )
    return names
