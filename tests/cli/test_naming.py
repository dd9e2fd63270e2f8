"""A changed suite has a short name, or the one that is asked for; older long ones are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli.naming import named, said_changes
from harness.errors import UserError
from harness.records.store import RunStore
from harness.spec.derived_names import long_suite_name
from harness.spec.overrides import parse_settings
from harness.spec.request import Request, resolve
from tests.planned import CPU, planned
from tests.store_records import record_of

CHANGED = Request(("base",), settings=("budget.steps=3", "corpus.held_out_limit=8"))


def test_what_was_changed_is_said_once(tmp_path: Path) -> None:
    (plan,) = resolve(named(CHANGED, RunStore(tmp_path)), CPU)
    expected = "quick with budget.steps=3, corpus.held_out_limit=8"
    assert said_changes(plan) == f"{plan.suite} is {expected}"
    assert said_changes(planned("base")) == ""


def test_runs_of_an_older_harness_are_found_under_their_long_name(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    long = long_suite_name("quick", parse_settings(CHANGED.settings)[1])
    assert long == "quick+budget.steps=3+corpus.held_out_limit=8"
    (plan,) = resolve(CHANGED, CPU)
    store.write(record_of(plan.model_copy(update={"suite": long})))
    (again,) = resolve(named(CHANGED, store), CPU)
    assert again.suite == long
    assert store.find(again) is not None
    store.write(record_of(plan))
    assert named(CHANGED, store) == CHANGED, "what today's harness has made comes first"


def test_a_name_of_ones_own_holds_one_protocol(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    mine = replace(CHANGED, name="my-exp")
    (plan,) = resolve(named(mine, store), CPU)
    assert plan.suite == "my-exp"
    assert plan.fingerprint == resolve(CHANGED, CPU)[0].fingerprint
    store.write(record_of(plan))
    assert named(replace(mine, variants=("qlora_nf4",)), store).name == "my-exp"
    with pytest.raises(UserError, match="already holds runs with other settings"):
        named(replace(mine, settings=("budget.steps=4",)), store)


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "a b"])
def test_a_name_stays_inside_the_reports_folder(name: str) -> None:
    with pytest.raises(UserError, match="--name"):
        resolve(replace(CHANGED, name=name), CPU)
