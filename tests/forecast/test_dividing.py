"""What each way of sharing a plan among devices needs, and which is the fastest."""

from __future__ import annotations

import pytest

from harness.forecast.dividing import exchanged, fastest, ways
from harness.forecast.weights import standing_bytes
from harness.spec.gpus import planned_gpu
from harness.spec.plan import Plan
from harness.weights.shape import count_plan
from tests.planned import planned

GIB = 1 << 30
SHARDED = ("training.devices=2", "training.parallel=sharded")
LARGE = ("suite.model=llama33_70b_shape", "training.gradient_checkpointing=true")


def plan_of(gpu: str, *settings: str, variant: str = "qlora_nf4_dq") -> Plan:
    """A plan for a GPU by its short name."""
    return planned(variant, *settings, device=planned_gpu(gpu))


def test_a_device_has_its_share_of_layers_and_embeddings_and_all_of_the_head() -> None:
    whole, shared = plan_of("h100", *LARGE), plan_of("h100", *LARGE, *SHARDED)
    one, two = (standing_bytes(plan, count_plan(plan)) for plan in (whole, shared))
    assert one.gathered == one.spread == 0
    assert two.base == pytest.approx(one.base - two.spread / 2, abs=1)
    embeddings = 128256 * 8192 * 2
    assert two.gathered == pytest.approx((two.spread - embeddings) / 80, rel=1e-3)
    around = embeddings + 68_451_041_280 / 64  # the head, a byte for each constant
    assert two.base == pytest.approx(around + two.spread / 2, rel=0.005)
    assert (two.adapter, two.optimizer) == (one.adapter, one.optimizer), "adapters stay whole"


def test_embeddings_that_an_adapter_is_put_on_stay_whole() -> None:
    targets = 'adapter.target_modules=["q_proj", "embed_tokens"]'
    beside, on = (
        standing_bytes(plan, count_plan(plan)).spread
        for plan in (
            plan_of("h100", *LARGE, *SHARDED),
            plan_of("h100", *LARGE, *SHARDED, targets),
        )
    )
    assert beside - on == 128256 * 8192 * 2


def test_a_large_model_shared_by_two_needs_26_gib_of_each() -> None:
    from harness.forecast.memory import predict

    size = ("training.sequence_length=2048", "training.packing=true", "budget.batch_size=2")
    rows = ("training.micro_batch_size=1", "training.activation_offload=true")
    plan = plan_of("h100", *LARGE, *SHARDED, *size, *rows)
    assert plan.training.activation_offload
    found = predict(plan)
    assert found is not None
    assert found.by_phase["train"] < 26 * GIB
    assert found.host_bytes == 80 * 2048 * 8192 * 2


def test_where_all_is_trained_gradients_and_optimizer_are_shared_too() -> None:
    full = ("suite.model=phi2_shape", "training.gradient_checkpointing=true")
    whole = plan_of("h100", *full, variant="full_finetune")
    shared = plan_of("h100", *full, *SHARDED, variant="full_finetune")
    one, two = (standing_bytes(plan, count_plan(plan)) for plan in (whole, shared))
    assert two.spread == one.base, "no embedding of Phi is its output layer"
    for name in ("base", "gradients", "optimizer"):
        assert getattr(two, name) == pytest.approx(getattr(one, name) / 2, rel=1e-6), name
    layer, embeddings = 78_653_440 * 4, 51_200 * 2_560 * 4
    assert two.gathered == pytest.approx(4 * layer + embeddings, rel=0.01)
    passes = shared.device_rows // shared.training.micro_batch_size
    assert exchanged(shared) == pytest.approx(3 * passes * two.spread / 2, rel=0.01)


def test_an_embedding_that_is_the_output_layer_stays_whole() -> None:
    plan = planned("full_finetune", *SHARDED)
    found = standing_bytes(plan, count_plan(plan))
    embedding = 49_152 * 576 * 4
    total = count_plan(plan).total * 4
    assert found.base == pytest.approx(embedding + (total - embedding) / 2, abs=4)


def test_two_devices_may_hold_what_one_cannot() -> None:
    room = 36 * GIB
    plan = plan_of("h100", *LARGE, *SHARDED, "training.micro_batch_size=1")
    found = {way.parallel: way for way in ways(plan, room)}
    assert [found[name].fits(room) for name in ("none", "data", "sharded")] == [False, False, True]
    assert "fastest: sharded" in fastest(list(found.values()), room)
    weights = {
        name: way.prediction.parts["weights"] for name, way in found.items() if way.prediction
    }
    assert weights["data"] == weights["none"] > 1.6 * weights["sharded"]


def test_data_is_faster_where_the_whole_model_fits() -> None:
    plan = plan_of("h100", "training.devices=2")
    room = plan.device.memory_bytes
    found = ways(plan, room)
    assert all(way.fits(room) for way in found)
    assert "fastest: data" in fastest(found, room)
    one, data, sharded = found
    assert one.exchanged == 0 < data.exchanged < sharded.exchanged


def test_gradients_pass_a_device_twice_less_a_share() -> None:
    plan = plan_of("h100", "training.devices=4", "budget.batch_size=8")
    gradients = standing_bytes(plan, count_plan(plan)).gradients
    assert exchanged(plan) == 2 * gradients * 3 // 4


def test_a_way_that_is_not_offered_says_why() -> None:
    found = ways(plan_of("h100", "training.devices=2", variant="lora_int8"), 80 * GIB)
    refused = {way.parallel: way.refused for way in found}
    assert "bitsandbytes #1709" in refused["sharded"]
    assert not refused["data"]
    assert "fastest: data" in fastest(found, 80 * GIB)


def test_nothing_fits_a_small_gpu() -> None:
    plan = plan_of("t4", *LARGE, "training.devices=2")
    room = plan.device.memory_bytes
    assert fastest(ways(plan, room), room) == "none of them fits"


def test_layer_inputs_on_the_host_are_predicted() -> None:
    from harness.forecast.memory import predict

    settings = ("training.activation_offload=true", "training.speed=fast")
    size = ("training.sequence_length=2048", "training.packing=true")
    rows = ("training.micro_batch_size=4", "budget.batch_size=4")
    found = predict(plan_of("h100", *LARGE, *settings, *size, *rows))
    assert found is not None
    assert found.host_bytes == (2 * 80 - 2) * 4 * 2048 * 8192 * 2
    other = predict(plan_of("h100"))
    assert other is not None
    assert other.host_bytes is None
