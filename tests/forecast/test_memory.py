"""Predicted memory against what was measured, and against real tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import InvalidFile
from harness.forecast.memory import MOST_ROWS, fits, largest_batch, predict, room_needed
from harness.forecast.weights import standing_bytes
from harness.quantize.bitsandbytes import NF4
from harness.spec.gpus import planned_gpu
from harness.spec.plan import Plan
from harness.spec.registry import load_model
from harness.spec.variant import Quantization
from harness.train.schedule import MicroBatch
from tests.forecast.phi_plans import CPU, H100, counted, make, small, training_peak

MEASURED = json.loads((Path(__file__).parent / "h100_peaks.json").read_text(encoding="utf-8"))
PLAIN = [item for item in MEASURED["training"] if item["training"].get("speed") != "fast"]


def measured_plan(item: dict[str, Any]) -> Plan:
    return make(item["variant"], item["training"], batch_size=item["batch_size"])


def describe(item: dict[str, Any]) -> str:
    return "-".join([item["variant"], *(str(value) for value in item["training"].values())])


@pytest.mark.parametrize("item", MEASURED["training"], ids=describe)
def test_predicted_peak_is_within_a_tenth_of_an_h100(item: dict[str, Any]) -> None:
    predicted = training_peak(measured_plan(item))
    assert predicted == pytest.approx(item["peak_bytes"], rel=0.10)


def test_the_measured_configurations_are_the_promised_ones() -> None:
    promised = {
        (variant, tokens, rows, checkpointing)
        for variant in ("lora_bf16", "qlora_nf4", "qlora_nf4_dq")
        for tokens in (512, 1024, 2048)
        for rows in (1, 4)
        for checkpointing in (False, True)
    }
    found = {
        (
            item["variant"],
            item["training"]["sequence_length"],
            item["training"]["micro_batch_size"],
            item["training"].get("gradient_checkpointing"),
        )
        for item in PLAIN
    }
    assert promised <= found


@pytest.mark.parametrize("variant", MEASURED["weight_bytes"])
def test_weight_bytes_are_those_of_the_loaded_model(variant: str) -> None:
    base = standing_bytes(make(variant), counted(variant)).base
    assert base == pytest.approx(MEASURED["weight_bytes"][variant], rel=1e-4)


def test_bits_of_a_quantized_parameter() -> None:
    plain, double = (
        8 * NF4.stored_bytes(Quantization(type="nf4", double=d), 2048, 2048) / 2048**2
        for d in (False, True)
    )
    assert plain == 4.5
    assert plain - double == pytest.approx(0.373, abs=0.001)


def test_every_phase_is_predicted_and_one_sets_the_peak() -> None:
    prediction = predict(make("qlora_nf4", model=small()))
    assert list(prediction.by_phase) == ["load", "score_base", "train", "score"]
    assert prediction.by_phase[prediction.phase] == prediction.peak_bytes
    assert sum(prediction.parts.values()) == prediction.by_phase["train"]


def test_an_untrained_variant_has_no_training_peak() -> None:
    plan = make("base_nf4", model=small())
    assert list(predict(plan).by_phase) == ["load", "score"]
    assert largest_batch(plan, 80 << 30) is None


@pytest.mark.parametrize(
    ("more", "less"),
    [
        ({"sequence_length": 1024}, {"sequence_length": 512}),
        ({"micro_batch_size": 4}, {"micro_batch_size": 2}),
        ({"gradient_checkpointing": False}, {"gradient_checkpointing": True}),
        ({"optimizer": "adamw"}, {"optimizer": "adamw_8bit"}),
        ({"optimizer": "adamw_8bit"}, {"optimizer": "paged_adamw_8bit"}),
        ({"speed": "plain"}, {"speed": "fast"}),
    ],
    ids=str,
)
def test_what_costs_memory_is_predicted_to(more: dict[str, Any], less: dict[str, Any]) -> None:
    wide = small(num_hidden_layers=6)
    assert training_peak(make("qlora_nf4", more, model=wide)) > training_peak(
        make("qlora_nf4", less, model=wide)
    )


def test_full_finetuning_on_an_h100_fits_and_on_a_4090_does_not() -> None:
    plan = make("full_finetune")
    assert fits(plan, H100.memory_bytes or 0)
    assert not fits(plan, planned_gpu("rtx4090").memory_bytes or 0)
    # float32 weights, gradients and two moments alone are 16 bytes for each of 2.78 billion
    assert predict(plan).peak_bytes > 4 * 4 * 2_700_000_000 * 0.9


@pytest.mark.parametrize("variant", ["qlora_nf4_dq", "lora_bf16"])
def test_largest_batch_fits_and_one_more_does_not(variant: str) -> None:
    room = 24 << 30
    rows = largest_batch(make(variant), room)
    assert rows is not None
    assert rows >= 1

    def needed(count: int) -> int:
        plan = make(variant, {"micro_batch_size": count})
        return room_needed(plan, training_peak(plan))

    assert needed(rows) <= room < needed(rows + 1)


def test_no_row_fits_into_less_than_the_weights() -> None:
    assert largest_batch(make("lora_bf16"), 5 << 30) == 0


def test_int8_and_other_families_are_rehearsed_too() -> None:
    assert predict(make("lora_int8")).by_phase["train"] < predict(make("lora_bf16")).peak_bytes
    for model in ("falcon_7b", "gpt_neox_20b"):
        prediction = predict(make("qlora_nf4_dq", model=model))
        assert prediction.parts["activations"] > 1 << 30


# Peaks of training SmolLM2-135M on 8 unpacked OASST1 conversations a step on an H100, the longest
# at the sequence length, the largest micro-batch at 4,948 tokens (reports/h100/quick.json).
SHORT_ROWS = [
    ("lora_bf16", 2_440_983_040),
    ("qlora_fp4", 2_281_082_880),
    ("qlora_nf4", 2_281_082_880),
    ("qlora_nf4_dq", 2_276_552_704),
    ("qlora_nf4_r4", 2_184_489_472),
]


@pytest.mark.parametrize(("variant", "peak"), SHORT_ROWS)
def test_known_rows_make_the_prediction_exact(variant: str, peak: int) -> None:
    training = {"speed": "fast", "micro_batch_size": 8, "sequence_length": 1024}
    plan = make(variant, training, model="smollm2_135m_instruct", device=H100, batch_size=8)
    assert predict(plan).by_phase["train"] > 1.3 * peak
    known = predict(plan, MicroBatch(longest=1024, tokens=4948))
    assert known.by_phase["train"] == pytest.approx(peak, rel=0.10)


def test_the_plain_path_is_padded_to_its_longest_row() -> None:
    training = {"micro_batch_size": 4, "sequence_length": 1024}
    plan = make("lora_bf16", training, model=small(), batch_size=4)
    full = predict(plan).by_phase["train"]
    assert predict(plan, MicroBatch(1024, 1100)).by_phase["train"] == full
    assert predict(plan, MicroBatch(300, 1100)).by_phase["train"] < full


# Peaks over all phases of real runs of SmolLM2-135M on two cores, as their records have them. The
# CPU's figures in harness.forecast.overhead come from the first two.
RESIDENT = [
    ("lora_bf16", {}, 3_834_000_000),
    ("qlora_nf4", {}, 4_030_000_000),
    ("qlora_nf4", {}, 4_437_000_000),  # on OASST1 instead of the sample
    ("qlora_nf4", {"micro_batch_size": 1}, 2_807_000_000),
    ("qlora_nf4", {"micro_batch_size": 1}, 2_929_000_000),
    ("qlora_nf4", {"micro_batch_size": 1}, 2_906_000_000),
    ("qlora_nf4", {"speed": "fast"}, 2_433_000_000),
]


# The same in bfloat16, on a processor that multiplies it, by phase and on the plain path: the
# weights' file is float32.
RESIDENT_BFLOAT16 = [
    ("base", "load", 1_422_000_000),
    ("base", "score", 1_232_000_000),
    ("base_nf4", "load", 1_586_000_000),
    ("base_nf4", "score", 1_254_000_000),
    ("lora_bf16", "load", 1_424_000_000),
    ("lora_bf16", "train", 2_456_000_000),
    ("qlora_nf4", "load", 1_502_000_000),
    ("qlora_nf4", "train", 2_364_000_000),
    ("qlora_nf4", "score", 1_842_000_000),
    ("qlora_nf4_r64", "train", 2_563_000_000),
]


@pytest.mark.parametrize(("variant", "phase", "peak"), RESIDENT_BFLOAT16)
def test_phases_in_bfloat16_on_a_cpu_are_predicted(variant: str, phase: str, peak: int) -> None:
    device = CPU.model_copy(update={"bfloat16": True})
    training = {"micro_batch_size": 1, "speed": "plain"}
    plan = make(variant, training, model="smollm2_135m_instruct", device=device, batch_size=2)
    assert plan.precision.compute == "bfloat16"
    assert predict(plan).by_phase[phase] == pytest.approx(peak, rel=0.20)


@pytest.mark.parametrize(("variant", "training", "peak"), RESIDENT)
def test_predicted_resident_memory_is_within_a_fifth(
    variant: str, training: dict[str, Any], peak: int
) -> None:
    plan = make(variant, training, model="smollm2_135m_instruct", device=CPU, batch_size=2)
    assert predict(plan).peak_bytes == pytest.approx(peak, rel=0.20)


def test_a_model_without_a_shape_cannot_be_planned() -> None:
    with pytest.raises(InvalidFile, match="states no shape"):
        predict(make("lora_bf16", model=load_model("phi2").model_copy(update={"config": {}})))


def test_a_tiny_model_fits_as_many_rows_as_anybody_asks_for() -> None:
    plan = make("lora_bf16", model=small(), device=planned_gpu("h100"))
    assert largest_batch(plan, 1 << 50) == MOST_ROWS
