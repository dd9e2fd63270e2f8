"""A changed suite has a short name, or the one that is asked for; older long ones are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli.naming import named, said_changes, said_paths, said_seeds
from harness.errors import UnknownName, UserError
from harness.records.store import RunStore
from harness.spec.derived_names import long_suite_name
from harness.spec.overrides import parse_settings
from harness.spec.plan import Plan
from harness.spec.request import Request, resolve
from harness.train import path
from tests.cli.terminal import refused, shown
from tests.planned import BFLOAT16_CPU, CPU, planned
from tests.store_records import record_of

CALLED = "lora_bf16+adapter.r=8"
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


@pytest.fixture
def mine(tmp_path: Path) -> Plan:
    """A run below ``tmp_path/runs`` that was asked for with settings, a task and a name."""
    request = replace(CHANGED, settings=(*CHANGED.settings, "adapter.r=8"), tasks=("boolq",))
    (plan,) = resolve(replace(request, name="my-exp", variants=("lora_bf16",)), CPU)
    RunStore(tmp_path / "runs").write(record_of(plan))
    return plan


@pytest.mark.parametrize("asked", [{"suite": "my-exp"}, {"name": "my-exp"}])
def test_the_name_of_runs_stands_for_their_settings(
    mine: Plan, tmp_path: Path, asked: dict[str, str]
) -> None:
    (other,) = resolve(named(Request(("base",), **asked), RunStore(tmp_path / "runs")), CPU)
    assert (other.suite, other.variant) == ("my-exp", "base"), "r = 8 was one variant's own"
    assert (other.score, other.corpus) == (mine.score, mine.corpus)
    assert other.request is not None
    assert other.request.suite == "quick"


def test_what_is_changed_of_named_runs_has_a_name_of_its_own(mine: Plan, tmp_path: Path) -> None:
    more = Request(("lora_bf16",), suite="my-exp", settings=("budget.steps=4",))
    (plan,) = resolve(named(more, RunStore(tmp_path / "runs")), CPU)
    assert plan.suite.startswith("quick@")
    assert (plan.budget.steps, plan.corpus) == (4, mine.corpus)


def test_an_unknown_name_is_answered_with_suites_and_names_of_runs(
    mine: Plan, tmp_path: Path
) -> None:
    assert mine.suite == "my-exp"
    with pytest.raises(UnknownName) as caught:
        named(Request(("base",), suite="my-exq"), RunStore(tmp_path / "runs"))
    assert "did you mean my-exp?" in str(caught.value)
    assert "quick" in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        ("plan", "--name", "my-exp", "-v", "base", "--device", "cpu"),
        ("plan", "--suite", "my-exp", "-v", "base", "--device", "cpu"),
        ("report", "--name", "my-exp"),
        ("report", "--suite", "my-exp"),
        ("list", "runs", "--name", "my-exp"),
        ("compare", f"my-exp/{CALLED}/0", CALLED, "--name", "my-exp"),
        ("study", "quantization", "--suite", "my-exp", "--plan", "--device", "cpu"),
    ],
)
def test_every_command_knows_the_name_of_runs(
    mine: Plan, tmp_path: Path, command: tuple[str, ...]
) -> None:
    assert shown(*command, "--reports", str(tmp_path))
    mistyped = [word.replace("my-exp", "my-exq") for word in command]
    if command[:2] != ("plan", "--name"):  # a name that is not there yet is a new one
        message = refused(*mistyped, "--reports", str(tmp_path))
        assert "did you mean" in message, message


def test_seeds_that_may_surprise_are_told() -> None:
    many = resolve(Request(("base", "lora_bf16"), seeds=(0, 1, 2)), CPU)
    assert said_seeds(many, "0..2") == [
        "base trains nothing and is run once: such scores do not depend on the seed"
    ]
    one = resolve(Request(("lora_bf16",), seeds=(3,)), CPU)
    assert said_seeds(one, "3") == ["--seeds 3 is one seed, number 3; 3 seeds are --seeds 0..2"]
    assert said_seeds(resolve(Request(("lora_bf16",)), CPU), "") == []


def test_variants_that_train_on_different_paths_are_told_apart() -> None:
    asked = Request(("base", "lora_bf16", "lora_dora", "qlora_nf4"), seeds=(0, 1))
    assert said_paths(path.resolve(asked, BFLOAT16_CPU)) == (
        "lora_bf16, qlora_nf4 on the fast path and lora_dora on the plain path: times and memory "
        "differ by the path too; --set suite.training.speed=plain trains all of them alike"
    )
    assert said_paths(path.resolve(asked, CPU)) == ""


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "a b"])
def test_a_name_stays_inside_the_reports_folder(name: str) -> None:
    with pytest.raises(UserError, match="--name"):
        resolve(replace(CHANGED, name=name), CPU)
