"""Catalogue: lm-eval tasks by name, stock or bundled, with their data from a folder or the hub."""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UnknownName, UserError
from harness.score.bundled import NAMES, TASKS
from harness.spec.suite import Task

DECLARES = re.compile(
    r"""^["']?(?:task|group)["']?:[ \t]*["']?([\w.:/-]+)["']?[ \t]*$""", re.MULTILINE
)
SPLITS = ("training_split", "validation_split", "test_split")


@dataclass(frozen=True)
class Loaded:
    """A task or group as lm-eval objects: what was asked for, and every leaf and group in it."""

    manager: Any
    asked: list[Any]
    tasks: dict[str, Any]
    groups: dict[str, Any]


@contextmanager
def load_task(task: Task, data_folder: Path | None, documents: Path) -> Iterator[Loaded]:
    """Load a task, group or tag with its data.

    ``documents`` is where the documents of bundled tasks were written. Data sets found below
    ``data_folder`` as ``<org>/<name>`` are read from there.

    Raises:
        UnknownName: no such task, with close matches.
        UserError: a data set, configuration or split is missing or empty, or few-shot examples
            would be drawn from the rows being scored.
    """
    with tempfile.TemporaryDirectory() as scratch:
        manager = _manager(task.name, documents)
        if data_folder is not None and task.name not in NAMES:
            _read_from(manager.task_index, task.name, data_folder, Path(scratch))
        try:
            found = manager.load([task.name])
        except IndexError as error:
            raise UserError(
                f"the split that task {task.name} scores is empty",
                where=data_folder or "the hub",
                expected="at least one row",
            ) from error
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise _missing_data(task.name, data_folder, error) from error
        loaded = Loaded(
            manager, list(found["tasks"].values()), found["tasks"], dict(found.get("groups", {}))
        )
        roots = [group for name, group in loaded.groups.items() if name == task.name]
        if roots:
            loaded = dataclasses.replace(loaded, asked=roots)
        for name, leaf in loaded.tasks.items():
            _check_fewshot(name, leaf, task, manager.task_index.get(name))
        yield loaded


def _manager(name: str, documents: Path) -> Any:
    from lm_eval.tasks import TaskManager

    if name in NAMES:
        return TaskManager(
            include_path=str(TASKS),
            include_defaults=False,
            metadata={"documents": str(documents)},
        )
    declared, mentioned = _look_for(name)
    if not mentioned:
        raise UnknownName("task", name, [*declared, *NAMES])
    for folder in _folders_around(declared.get(name)):
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        if _is_whole(manager.task_index, name):
            return manager
    manager = TaskManager()
    if name not in manager.task_index:
        raise UnknownName("task", name, [*manager.all_tasks, *NAMES])
    return manager


def _look_for(name: str) -> tuple[dict[str, Path], bool]:
    """Every task and group with the file that declares it, and whether any file has ``name``.

    lm-eval parses all its 14,000 files to find one task, which takes ten seconds and more;
    looking through them as text takes one.
    """
    declared: dict[str, Path] = {}
    mentioned = False
    for path in sorted(_stock_root().rglob("*.yaml")):
        text = path.read_text(encoding="utf-8", errors="replace")
        mentioned = mentioned or name in text
        for found in DECLARES.findall(text):
            declared.setdefault(found, path)
    return declared, mentioned


def _folders_around(path: Path | None) -> list[Path]:
    """lm-eval's folders that hold the file, smallest first; none without a file."""
    root = _stock_root()
    return [] if path is None else [folder for folder in path.parents if root in folder.parents]


def _stock_root() -> Path:
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent


def _members(entry: Any) -> list[str]:
    """Names a group or tag is made of; none for a task."""
    members = (entry.cfg or {}).get("task")
    if isinstance(members, list):
        return [m if isinstance(m, str) else str(m.get("task", m.get("group"))) for m in members]
    return sorted(entry.tags) if entry.yaml_path is None else []


def _is_whole(index: dict[str, Any], name: str) -> bool:
    """Whether every member of a group, to any depth, is in the index."""
    return name in index and all(_is_whole(index, member) for member in _members(index[name]))


def _leaves(index: dict[str, Any], name: str) -> Iterator[str]:
    """The tasks below a name, to any depth."""
    members = _members(index[name]) if name in index else []
    for member in members:
        yield from _leaves(index, member)
    if not members:
        yield name


def _read_from(index: dict[str, Any], name: str, data_folder: Path, scratch: Path) -> None:
    """Point every task of ``name`` whose data set is in the folder at it.

    A file that includes the stock one and overrides the path is merged by lm-eval itself, for
    groups too. A training or validation split that the copy lacks is overridden with null.
    """
    if not data_folder.is_dir():
        raise UserError(
            "no such data folder",
            where=data_folder,
            expected="a folder that mirrors data sets as <org>/<name>",
        )
    for number, leaf in enumerate(sorted(set(_leaves(index, name)) & set(index))):
        entry = index[leaf]
        config = entry.cfg or {}
        path = config.get("dataset_path")
        if entry.yaml_path is None or not isinstance(path, str):
            continue
        local = data_folder / path
        if "/" not in path or not local.is_dir():
            continue
        override = scratch / f"{number}.yaml"
        values = {
            "include": str(entry.yaml_path),
            "dataset_path": str(local.resolve()),
            **_absent_splits(config, local),
        }
        override.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
        index[leaf] = dataclasses.replace(entry, yaml_path=override)


def _absent_splits(config: dict[str, Any], local: Path) -> dict[str, None]:
    import datasets

    asked = {key: config[key] for key in SPLITS if isinstance(config.get(key), str)}
    try:
        there = set(_split_names(local, config.get("dataset_name")))
    except (ValueError, OSError, datasets.exceptions.DatasetNotFoundError):
        return {}  # loading the task will say what is missing
    scored = asked.get("test_split") or asked.get("validation_split")
    if scored is not None and scored.split("[")[0] not in there:
        return {}
    return {key: None for key, split in asked.items() if split.split("[")[0] not in there}


def _split_names(local: Path, config: str | None) -> list[str]:
    import datasets

    names: list[str] = datasets.get_dataset_split_names(str(local), config)
    return names


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
