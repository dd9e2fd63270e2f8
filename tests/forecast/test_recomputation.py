"""Recomputation by budget: as many layers keep what they computed as memory allows."""

from __future__ import annotations

import pytest

from harness.forecast.memory import predict, room_needed, settle_recomputation
from harness.spec.plan import Plan
from harness.weights.shape import count_plan, transformers_config
from tests.planned import GPU, planned

AUTO = "training.gradient_checkpointing=auto"
BIG = (
    "training.speed=fast",
    "training.packing=true",
    "training.sequence_length=2048",
    "training.micro_batch_size=8",
    "suite.budget.batch_size=8",
    "suite.model=phi2_shape",
)
GIB = 1 << 30


def settled(plan: Plan) -> Plan:
    return settle_recomputation(plan, count_plan(plan))


def of(*settings: str) -> Plan:
    return planned("qlora_nf4_dq", *BIG, *settings, device=GPU)


def test_more_memory_keeps_more_layers_and_is_never_overrun() -> None:
    depth = transformers_config(of(AUTO).model).num_hidden_layers
    found = []
    for gib in (5, 8, 12, 16, 24, 40):
        plan = settled(of(AUTO, f"training.memory_gib={gib}"))
        prediction = predict(plan)
        assert prediction is not None
        needed = room_needed(plan, prediction.by_phase["train"])
        assert needed <= 0.96 * gib * GIB or plan.training.kept_layers == 0
        found.append(plan.training.kept_layers)

    assert found == sorted(found)
    assert found[0] == 0
    assert 0 < found[2] < depth
    assert found[-1] == depth


def test_the_device_is_the_limit_where_none_is_given() -> None:
    assert settled(of(AUTO)).training.kept_layers == 32
    small = GPU.model_copy(update={"memory_bytes": 12 * GIB})

    on_small = planned("qlora_nf4_dq", *BIG, AUTO, device=small)

    in_12 = settled(of(AUTO, "training.memory_gib=12"))
    assert settled(on_small).training.kept_layers == in_12.training.kept_layers


def test_more_than_the_device_has_is_not_to_be_had() -> None:
    small = GPU.model_copy(update={"memory_bytes": 12 * GIB})
    more = planned("qlora_nf4_dq", *BIG, AUTO, "training.memory_gib=40", device=small)
    there = planned("qlora_nf4_dq", *BIG, AUTO, device=small)
    assert settled(more).training.kept_layers == settled(there).training.kept_layers


def test_a_step_that_fits_in_no_way_recomputes_everything() -> None:
    assert settled(of(AUTO, "training.memory_gib=1")).training.kept_layers == 0


def test_the_forecast_of_a_plan_counts_the_layers_that_will_be_kept() -> None:
    asked = of(AUTO, "training.memory_gib=12")

    assert predict(asked) == predict(settled(asked))
    assert predict(asked) != predict(of("training.gradient_checkpointing=true"))


@pytest.mark.parametrize("kept", [0, 1, 5, 31])
def test_all_but_the_kept_layers_are_between_none_and_all(kept: int) -> None:
    def train(*settings: str) -> int:
        prediction = predict(of(*settings))
        assert prediction is not None
        return prediction.by_phase["train"]

    every = "training.gradient_checkpointing=true"
    found = train(every, f"training.kept_layers={kept}")

    assert train(every) <= found <= train()


def test_a_path_that_recomputes_all_or_none_says_so() -> None:
    plan = planned("qlora_nf4", "training.speed=plain", AUTO)

    assert plan.training.gradient_checkpointing is True
    found = {item.key: (item.asked, item.used) for item in plan.substitutions}
    assert found["training.gradient_checkpointing"] == ("auto", True)
