"""Variants side by side: what each needs, what it saves, and what makes it fit."""

from __future__ import annotations

from harness.forecast.memory import largest_batch
from harness.forecast.table import forecast, hint, reference_of
from tests.planned import GPU, planned


def test_the_reference_is_a_trained_variant_on_an_unquantized_base() -> None:
    names = ("base", "qlora_nf4", "lora_bf16", "full_finetune")
    found = [forecast(planned(name, device=GPU)) for name in names]
    reference = reference_of(found)
    assert reference is not None
    assert reference.plan.variant == "lora_bf16"
    assert reference_of(found[:1]) is None
    assert all(item.fits for item in found)


def test_a_hint_is_a_setting_that_fits() -> None:
    plan = planned(
        "lora_bf16", "training.micro_batch_size=8", "budget.batch_size=8", device=GPU
    )  # fmt: skip
    prediction = forecast(plan).prediction
    assert prediction is not None
    room = int(prediction.by_phase["train"] * 0.9)
    text = hint(plan, room)
    assert "training.micro_batch_size=4" in text
    assert (largest_batch(plan, room) or 0) in range(4, 8)
