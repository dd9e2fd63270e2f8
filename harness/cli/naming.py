"""Naming: what a changed suite is called, and what was changed in it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from harness.errors import UserError
from harness.spec.derived_names import long_suite_name, suite_name
from harness.spec.request import Request, suite_changes, suite_overrides

if TYPE_CHECKING:
    from harness.records.store import RunStore
    from harness.spec.plan import Plan, RunRequest

NameOption = Annotated[
    str,
    typer.Option("--name", help="Name of the changed suite; default: a short digest in its name."),
]


def named(request: Request, store: RunStore) -> Request:
    """``request`` under the name that its runs have: also the long one of an older harness.

    Raises:
        UserError: the name that was asked for holds runs of other settings.
    """
    if request.name:
        _refuse_another_protocol(request, store)
        return request
    overrides = suite_overrides(request)
    short = suite_name(request.suite, overrides)
    older = long_suite_name(request.suite, overrides)
    known = store.suites()
    return replace(request, name=older) if older in known and short not in known else request


def _refuse_another_protocol(request: Request, store: RunStore) -> None:
    from harness.records.store import StoredRun

    runs = (run for run in store.scan(request.name) if isinstance(run, StoredRun))
    there = next((run.record.plan.request for run in runs), None)
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


def said_changes(plan: Plan) -> str:
    """What the name of the plan's suite stands for; empty where that is a file's own."""
    request = plan.request
    if request is None or not (changes := suite_changes(request)):
        return ""
    return f"{plan.suite} is {request.suite} with {', '.join(changes)}"
