"""Plans for several devices: what they say, and what is refused with a reason."""

from __future__ import annotations

import pytest

from harness.errors import UserError
from tests.planned import GPU, planned

SHARDED = ("training.devices=2", "training.parallel=sharded")


def test_several_devices_divide_data_unless_told_otherwise() -> None:
    plan = planned("lora_bf16", "training.devices=2")
    assert (plan.training.devices, plan.training.parallel) == (2, "data")
    assert plan.fingerprint != planned("lora_bf16").fingerprint
    assert plan.variant != planned("lora_bf16").variant, "both have a row in a report"


def test_the_untrained_base_is_scored_by_all_devices_too() -> None:
    plan = planned("base", "training.devices=2")
    assert (plan.training.devices, plan.training.parallel) == (2, "data")


def test_processes_on_one_processor_share_its_threads_and_that_may_move_scores() -> None:
    alone, both = planned("base"), planned("base", "training.devices=2")
    assert (alone.threads, both.threads) == (2, 1)
    assert alone.base_fingerprint != both.base_fingerprint


def test_gpus_score_an_untrained_model_alike_however_many_there_are() -> None:
    alone = planned("base", device=GPU)
    assert planned("base", "training.devices=2", device=GPU).base_fingerprint == (
        alone.base_fingerprint
    )


def test_a_micro_batch_divides_what_a_device_gets() -> None:
    plan = planned(
        "lora_bf16", "training.devices=2", "budget.batch_size=8", "training.micro_batch_size=8"
    )
    assert plan.device_rows == plan.training.micro_batch_size == 4
    reasons = {item.key: item.reason for item in plan.substitutions}
    assert "a device's part" in reasons["training.micro_batch_size"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("training.devices=3", "budget.batch_size=8"), "cannot be divided over 3 devices"),
        (("training.devices=2", "training.parallel=none"), 'parallel = "none"'),
        (("training.parallel=data",), "on one device"),
        ((*SHARDED, "quantization.type=int8"), "bitsandbytes #1709"),
        ((*SHARDED, "quantization.type=int4"), "peft #1432"),
        ((*SHARDED, "adapter.use_dora=true"), "peft #1737"),
        ((*SHARDED, "adapter.init_lora_weights=pissa"), "every device has only a part"),
        ((*SHARDED, "score.forms=['training','merged']"), "needs the whole model on one device"),
    ],
)
def test_what_cannot_work_is_refused_with_its_reason(settings: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        planned("qlora_nf4", *settings)


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("ia3", "IA3 adapters"),
        ("full_adamw_8bit", "the optimizer adamw_8bit: .* [(]bitsandbytes #89[)]"),
        ("full_muon", "the optimizer muon: it reads whole matrices"),
        ("full_adafactor", "the optimizer adafactor: it reads whole matrices"),
    ],
)
def test_other_adapters_and_optimizers_are_not_sharded(variant: str, words: str) -> None:
    with pytest.raises(UserError, match=f"is not offered for {words}"):
        planned(variant, *SHARDED, device=GPU)


@pytest.mark.parametrize(
    "variant", ["lora_bf16", "lora_rs", "qlora_nf4_dq", "base_nf4", "full_finetune"]
)
def test_a_sharded_plan_is_trained_on_the_plain_path(variant: str) -> None:
    plan = planned(variant, *SHARDED, "training.speed=fast", device=GPU)
    assert plan.sharded
    assert plan.training.parallel == "sharded"
    if plan.trains:
        assert plan.training.speed == "plain"
        reasons = {item.key: item.reason for item in plan.substitutions}
        assert "weights that are spread over devices" in reasons["training.speed"]
