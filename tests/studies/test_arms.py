"""Arms: which variants a study compares, and that their plans are what a person would type."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UnknownName, UserError
from harness.spec.plan import Plan
from harness.studies.arms import (
    Typed,
    compare_what,
    trial_job,
    trial_plan,
    verdict_job,
    verdict_plan,
)
from tests.planned import CPU, planned
from tests.studies.stub import study


def labels(**written: object) -> list[str]:
    return [arm.label for arm in compare_what(study(**written), CPU).arms]


def test_names_are_compared_in_the_order_given() -> None:
    assert labels(variants=["qlora_nf4", "lora_bf16"]) == ["qlora_nf4", "lora_bf16"]


def test_a_pattern_stands_for_every_variant_that_fits() -> None:
    found = labels(variants=["lora_bf16", "qlora_nf4*"])
    assert "qlora_nf4_dq" in found
    assert "qlora_fp4" not in found
    with pytest.raises(UnknownName, match="pattern of variants"):
        labels(variants=["lora_bf16", "nothing*"])


def test_a_variant_named_twice_is_one_arm() -> None:
    assert labels(variants=["lora_bf16", "qlora_nf4", "lora_bf16"]) == ["lora_bf16", "qlora_nf4"]


def test_a_reference_that_is_no_contender_is_added_first() -> None:
    found = compare_what(study(variants=["qlora_nf4"], reference="lora_bf16"), CPU)
    assert [arm.label for arm in found.arms] == ["lora_bf16", "qlora_nf4"]
    assert found.reference == "lora_bf16"


def test_settings_of_an_entry_make_an_arm_of_their_own() -> None:
    entry = {"variant": "lora_bf16", "settings": {"adapter.r": 4}}
    found = compare_what(study(variants=["lora_bf16", entry]), CPU)
    assert [arm.label for arm in found.arms] == ["lora_bf16", "lora_bf16+adapter.r=4"]
    assert found.reference == "lora_bf16", "the plain one"


def test_an_arm_can_be_named_as_it_is_called() -> None:
    name = "lora_bf16+adapter.r=4+adapter.target_modules=all-linear"
    entry = {"variant": "lora_bf16", "settings": {"adapter.r": 4}}
    found = compare_what(study(variants=["lora_bf16", name, entry]), CPU)
    assert list(found.by_label) == ["lora_bf16", name, "lora_bf16+adapter.r=4"]
    adapter = found.by_label[name].plan.adapter
    assert adapter is not None
    assert adapter.model_dump()["r"] == 4
    added = compare_what(study(), CPU, added=["lora_bf16+training.learning_rate=1e-4"])
    assert list(added.by_label)[-1] == "lora_bf16+training.learning_rate=0.0001"
    with pytest.raises(UserError, match="unknown section 'adopter'"):
        compare_what(study(variants=["lora_bf16+adopter.r=4"]), CPU)


def test_a_grid_multiplies_what_is_trained() -> None:
    found = labels(variants=["lora_bf16", "base"], grid={"adapter.r": [4, 8]}, reference="base")
    assert found == ["lora_bf16+adapter.r=4", "lora_bf16+adapter.r=8", "base"]


def test_a_reference_with_several_settings_must_be_named_whole() -> None:
    with pytest.raises(UnknownName, match="reference"):
        labels(variants=["lora_bf16"], grid={"adapter.r": [4, 8]}, reference="lora_bf16")


def test_a_setting_of_variants_has_no_place_among_the_suite_s() -> None:
    with pytest.raises(UserError, match=r"adapter\.r is a setting of variants") as caught:
        labels(settings={"adapter.r": 4})
    assert "[grid]" in str(caught.value)


def test_a_setting_of_the_suite_may_be_a_list_of_tables() -> None:
    tasks = [{"name": "arc_easy", "limit": 200}, {"name": "openbookqa", "num_fewshot": 0}]
    (arm, *_) = compare_what(study(settings={"score.tasks": tasks}), CPU).arms
    assert [(one.name, one.limit) for one in arm.plan.score.tasks] == [
        ("arc_easy", 200),
        ("openbookqa", None),
    ]
    assert typed(arm.plan).score == arm.plan.score


def test_a_study_that_tunes_gets_a_validation_split() -> None:
    tuned = compare_what(study(), CPU).arms[0].plan
    assert tuned.corpus.validation_fraction > 0
    plain = compare_what(study(tune={"trials": 1}), CPU).arms[0].plan
    assert plain.corpus.validation_fraction == 0
    own = compare_what(study(settings={"corpus.validation_fraction": 0.3}), CPU).arms[0].plan
    assert own.corpus.validation_fraction == 0.3


def test_what_was_typed_is_for_every_run() -> None:
    typed = Typed(("budget.steps=9",)).with_more(["corpus.held_out_limit=5"])
    for arm in compare_what(study(), CPU, typed).arms:
        assert arm.plan.budget.steps == 9
        assert arm.plan.corpus.held_out_limit == 5


def test_variants_that_decisions_added_know_which_decision_it_was() -> None:
    found = compare_what(study(), CPU, added=["qlora_fp4", "lora_bf16", "qlora_nf4_dq"])
    assert found.added == {"qlora_fp4": 0, "qlora_nf4_dq": 2}, "one was there already"
    assert list(found.by_label) == ["lora_bf16", "qlora_nf4", "qlora_fp4", "qlora_nf4_dq"]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compare_what(study(), CPU).arms[0].plan


def typed(plan: Plan) -> Plan:
    """What the plan's request makes when it is typed again."""
    assert plan.request is not None
    return planned(plan.request.variant, *plan.request.settings, seed=plan.seed)


def test_the_run_for_the_verdict_is_what_its_request_would_make() -> None:
    arm = compare_what(study(), CPU).arms[0]
    found = verdict_plan(arm, 3e-4, 2)
    assert (found.seed, found.training.learning_rate) == (2, 3e-4)
    assert found.variant == "lora_bf16+training.learning_rate=0.0003"
    assert typed(found).fingerprint == found.fingerprint
    assert verdict_plan(arm, arm.default, 0) == arm.plan


@pytest.mark.parametrize(("share", "steps"), [(1.0, 28), (0.5, 14), (0.01, 1)])
def test_a_trial_has_its_share_of_the_budget_and_sees_no_held_out_text(
    share: float, steps: int
) -> None:
    arm = compare_what(study(), CPU).arms[0]
    found = trial_plan(arm, 3e-4, share, 1)
    assert found.budget.steps == steps
    assert found.score.split == "validation"
    assert found.seed == 1
    assert typed(found).fingerprint == found.fingerprint


def test_a_trial_knows_no_task_data(tmp_path: Path) -> None:
    arm = compare_what(study(settings={"score.data_folder": str(tmp_path)}), CPU).arms[0]
    assert arm.plan.data_sha256 is not None
    found = trial_plan(arm, 3e-4, 1.0, 1)
    assert found.data_sha256 is None
    assert typed(found).fingerprint == found.fingerprint


def test_a_token_budget_is_shared_by_tokens() -> None:
    written = {"settings": {"budget.steps": "none", "budget.tokens": 1000}}
    arm = compare_what(study(**written), CPU).arms[0]
    found = trial_plan(arm, arm.default, 0.25, 0)
    assert (found.budget.steps, found.budget.tokens) == (None, 250)


def test_a_job_is_made_once_however_often_it_is_asked_for(plan: Plan) -> None:
    arm = compare_what(study(), CPU).arms[0]
    assert verdict_job(arm, 3e-4, 1) is verdict_job(arm, 3e-4, 1)
    assert trial_job(arm, 3e-4, 0.5, 1) is trial_job(arm, 3e-4, 0.5, 1)
    assert verdict_job(arm, 3e-4, 1) is not verdict_job(arm, 3e-4, 2)
    assert verdict_job(arm, arm.default, 0).plan.fingerprint == plan.fingerprint
    assert (verdict_job(arm, 3e-4, 1).stage, trial_job(arm, 3e-4, 0.5, 1).stage) == (
        "verdict",
        "tune",
    )
