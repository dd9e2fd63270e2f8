"""Naming: what a changed suite is called, what was changed in it, and what a name stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.errors import UnknownName, UserError
from harness.spec.derived_names import long_suite_name, suite_name
from harness.spec.overrides import changes_suite
from harness.spec.registry import suite_names
from harness.spec.request import Request, suite_changes, suite_overrides
from harness.spec.variant import PLAIN

if TYPE_CHECKING:
    from harness.records.store import RunStore
    from harness.spec.plan import Plan, RunRequest
    from harness.studies.open import StudyRequest

NameOption = Annotated[
    str,
    typer.Option(
        "--name",
        help="Name for these runs and their report, to be used wherever a suite is asked for; "
        "default: the suite's, with a short digest of what was changed.",
    ),
]
NamedOption = Annotated[
    str,
    typer.Option(
        "--suite",
        "--name",
        "-s",
        help="A built-in suite, a TOML file, or the name that runs were given with --name.",
    ),
]
DEFAULT = "quick"


def named(request: Request, store: RunStore) -> Request:
    """``request`` under the name that its runs have: also the long one of an older harness.

    A name that runs have stands for the settings of these runs: ``--suite my-exp``, or ``--name
    my-exp`` where nothing else is said of the suite.

    Raises:
        UnknownName: neither a suite nor the name of any runs.
        UserError: the name that was asked for holds runs of other settings.
    """
    request = _known(request, store)
    if request.name:
        _refuse_another_protocol(request, store)
        return request
    overrides = suite_overrides(request)
    short = suite_name(request.suite, overrides)
    older = long_suite_name(request.suite, overrides)
    known = store.suites()
    return replace(request, name=older) if older in known and short not in known else request


def _known(request: Request, store: RunStore) -> Request:
    """``request`` with the suite and the settings that the runs of a name were asked for with."""
    changed = bool(request.tasks) or any(map(changes_suite, request.settings))
    alone = request.name if request.suite == DEFAULT and not changed else ""
    there = runs_of(alone, store) or named_suite(request.suite, store)
    if there is None:
        return request
    own = tuple(filter(changes_suite, there.settings))
    return replace(
        request,
        suite=there.suite,
        settings=(*own, *request.settings),
        tasks=(*there.tasks, *request.tasks),
        name=request.name or ("" if changed else request.suite),
    )


def named_suite(name: str, store: RunStore) -> RunRequest | None:
    """What the runs under ``name`` were asked for with; None where ``name`` is a suite itself.

    Raises:
        UnknownName: neither a suite nor the name of any runs.
    """
    if name.endswith(".toml") or name in suite_names():
        return None
    there = runs_of(name, store)
    if there is None:
        raise UnknownName("suite", name, [*suite_names(), *store.suites()])
    return there


def study_as_asked(typed: StudyRequest, reports: Path) -> StudyRequest:
    """``typed``, where the name that a study or runs were given stands for what they were."""
    from harness.records.store import RunStore
    from harness.studies.open import known_as

    there = known_as(typed, reports)
    if there is not None:
        return there
    request = named_suite(typed.suite, RunStore(reports / "runs")) if typed.suite else None
    if request is None:
        return typed
    settings = (*filter(changes_suite, request.settings), *typed.settings)
    changed = {"suite": request.suite, "settings": settings}
    return typed.model_copy(update={**changed, "tasks": (*request.tasks, *typed.tasks)})


def runs_of(name: str, store: RunStore) -> RunRequest | None:
    """What the runs under ``name`` were asked for with; None where there are none."""
    from harness.records.store import StoredRun

    if not name:
        return None
    runs = (run for run in store.scan(name) if isinstance(run, StoredRun))
    return next((run.record.plan.request for run in runs), None)


def _refuse_another_protocol(request: Request, store: RunStore) -> None:
    there = runs_of(request.name, store)
    asked = request.of_run("")
    if there is not None and _protocol(there) != _protocol(asked):
        raise UserError(
            f"--name {request.name} already holds runs with other settings",
            where=store.root / request.name,
            expected=f"{there.suite} with {', '.join(suite_changes(there)) or 'nothing changed'}",
            hint="choose another name",
        )


def _protocol(request: RunRequest) -> tuple[str, list[str]]:
    return request.suite, sorted(suite_changes(request))


def said_seeds(plans: Sequence[Plan], asked: str) -> list[str]:
    """What a reader may not expect of the seeds: one where several were meant, and fewer runs."""
    lines = []
    seeds = {plan.seed for plan in plans if plan.trains}
    if asked.isdecimal() and int(asked) > 1 and seeds:
        several = f"--seeds 0..{int(asked) - 1}"
        lines.append(f"--seeds {asked} is one seed, number {asked}; {asked} seeds are {several}")
    once = sorted({plan.variant for plan in plans if plan.method == "none"})
    if once and len(seeds) > 1:
        what = "trains nothing and is run once" if len(once) == 1 else "train nothing and run once"
        lines.append(f"{', '.join(once)} {what}: such scores do not depend on the seed")
    return lines


def said_paths(plans: Sequence[Plan]) -> str:
    """Which variants train on which path, where they do not all train on one."""
    found: dict[str, dict[str, None]] = {}
    for plan in plans:
        if plan.trains:
            found.setdefault(plan.training.speed, {})[plan.variant] = None
    if len(found) < 2:
        return ""
    parts = [f"{', '.join(names)} on the {path} path" for path, names in sorted(found.items())]
    return (
        f"{' and '.join(parts)}: times and memory differ by the path too; "
        f"--set suite.training.speed={PLAIN} trains all of them alike"
    )


def said_changes(plan: Plan) -> str:
    """What the name of the plan's suite stands for; empty where that is a file's own."""
    request = plan.request
    if request is None or not (changes := suite_changes(request)):
        return ""
    return f"{plan.suite} is {request.suite} with {', '.join(changes)}"
