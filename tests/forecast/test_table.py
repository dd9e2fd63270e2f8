"""Variants side by side: what each needs, what it saves, and what makes it fit."""

from __future__ import annotations

from rich.console import Console

from harness.forecast.memory import largest_batch, room_needed
from harness.forecast.table import forecast, forecast_table, hint, reference_of
from harness.spec.plan import Plan
from tests.planned import CPU, GPU, planned


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


def test_what_validation_needs_is_shown_where_a_variant_validates() -> None:
    plain = planned("lora_bf16", device=GPU)
    validated = planned(
        "lora_bf16", "validation.every=5", "corpus.validation_fraction=0.1", device=GPU
    )
    assert "vali-" not in table_of(plain)
    found = forecast(validated).prediction
    assert found is not None
    text = table_of(plain, validated)
    assert "vali-" in text
    assert f"{found.by_phase['validate'] / 2**30:.2f}" in text


def table_of(*plans: Plan) -> str:
    console = Console(width=140)
    with console.capture() as captured:
        console.print(forecast_table([forecast(plan) for plan in plans]))
    return captured.get()


def test_what_a_hint_advises_is_predicted_to_fit() -> None:
    plan = planned("qlora_nf4", device=GPU)
    asked = ("training.gradient_checkpointing=true", "training.sequence_length=128")
    shorter = planned("qlora_nf4", *asked, device=GPU)
    needed = forecast(shorter).prediction
    assert needed is not None
    text = hint(plan, room_needed(shorter, needed.by_phase["train"]))
    assert all(f"--set {setting}" in text for setting in asked)
    assert "shorter sequences are not enough" in hint(plan, 1 << 20)


def test_an_adapter_that_does_not_fit_by_itself_is_advised_a_rank_that_fits() -> None:
    """Neither a smaller model nor shorter rows would help."""
    plan = planned("lora_bf16", "adapter.r=100000000", device=CPU)
    text = hint(plan, 24 << 30)
    rank = int(text.partition("--set adapter.r=")[2].rstrip("."))
    assert 256 <= rank < 100_000
    assert largest_batch(planned("lora_bf16", f"adapter.r={rank}", device=CPU), 24 << 30)
    assert "smaller adapter" in hint(plan, 1 << 20)
