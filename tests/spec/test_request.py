"""What a user asks becomes a plan for each variant and seed."""

from __future__ import annotations

from pathlib import Path

from harness.spec.plan import RunRequest
from harness.spec.registry import (
    load_suite,
)
from harness.spec.request import Request, resolve, suite_changes
from harness.spec.suite import Suite
from tests.planned import CPU


def quick(**overrides: object) -> Suite:
    return load_suite("quick", overrides)


def test_variants_and_seeds_make_a_plan_each() -> None:
    plans = resolve(Request(("lora_bf16", "qlora_nf4"), seeds=(0, 1)), CPU)
    assert [(plan.variant, plan.seed) for plan in plans] == [
        ("lora_bf16", 0),
        ("qlora_nf4", 0),
        ("lora_bf16", 1),
        ("qlora_nf4", 1),
    ]


def test_what_trains_nothing_has_one_plan_whatever_the_seeds() -> None:
    plans = resolve(Request(("base", "qlora_nf4"), seeds=(3, 4)), CPU)
    assert [(plan.variant, plan.seed) for plan in plans] == [
        ("base", 0),
        ("qlora_nf4", 3),
        ("qlora_nf4", 4),
    ]
    assert plans[0].fingerprint == resolve(Request(("base",)), CPU)[0].fingerprint


def test_none_empties_a_list_of_the_suite() -> None:
    (plan,) = resolve(Request(("base",), settings=("score.tasks=none",), tasks=("boolq",)), CPU)
    assert [task.name for task in plan.score.tasks] == ["boolq"]


def test_tasks_are_scored_besides_the_suites_own_and_named() -> None:
    (plan,) = resolve(Request(("base",), tasks=("arc_easy",)), CPU)
    assert [task.name for task in plan.score.tasks] == ["held_out_replies", "arc_easy"]
    assert plan.suite.startswith("quick@")
    assert plan.request is not None
    assert suite_changes(plan.request) == ["task arc_easy"]


def test_every_plan_keeps_its_part_of_the_request_as_typed(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text('description = "mine"\n')
    settings = ("budget.steps = 3", "score.tasks=[]")
    asked = (str(own), "lora_bf16")
    request = Request(asked, settings=settings, tasks=("arc_easy",), seeds=(0, 1))
    kept = {"suite": "quick", "settings": settings, "tasks": ("arc_easy",)}
    assert [plan.request for plan in resolve(request, CPU)] == [
        RunRequest(variant=str(own), **kept),
        RunRequest(variant="lora_bf16", **kept),
    ] * 2


def test_the_suites_seeds_are_used_where_none_are_asked_for() -> None:
    assert [plan.seed for plan in resolve(Request(("base",)), CPU)] == list(quick().seeds)


def test_a_suite_setting_changes_the_protocol_of_every_variant() -> None:
    settings = ("suite.training.speed=fast", "suite.budget.steps=3")
    request = Request(variants=("lora_bf16", "qlora_nf4"), settings=settings)
    plans = resolve(request, CPU)
    assert [plan.variant for plan in plans] == ["lora_bf16", "qlora_nf4"]
    assert len({plan.suite for plan in plans}) == 1
    assert plans[0].request is not None
    assert suite_changes(plans[0].request) == ["training.speed=fast", "budget.steps=3"]
    assert all(plan.training.speed == "fast" for plan in plans)
    apart = resolve(Request(variants=("lora_bf16",), settings=("training.speed=fast",)), CPU)
    assert [(plan.variant, plan.suite) for plan in apart] == [
        ("lora_bf16+training.speed=fast", "quick")
    ]
