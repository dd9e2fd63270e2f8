"""What each PEFT method asks of a run, and which ones are refused before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from harness.spec.methods import (
    CARRIED,
    READS_BASE,
    TYPES,
    held_still,
    initialisation,
    needs_of,
    optimizer_refusal,
    plainly_initialised,
    reads_rows,
    refusal,
    shares_ranks,
    virtual_tokens,
)
from harness.spec.variant import Adapter, Quantization
from tests.planned import GPU, planned

PLAIN, NF4, INT8, INT4 = (Quantization(type=name) for name in ("none", "nf4", "int8", "int4"))


def adapter(kind: str = "LORA", **fields: Any) -> Adapter:
    return Adapter(type=kind, **fields)


# What a method needs


def test_plain_lora_needs_nothing() -> None:
    needs = needs_of(adapter())
    assert needs == needs_of(None)
    assert (needs.virtual_tokens, needs.holds_cache, needs.steps, needs.allocates) == (
        None,
        False,
        None,
        False,
    )


@pytest.mark.parametrize(
    ("made", "count"),
    [
        (adapter("PROMPT_TUNING", num_virtual_tokens=8), 8),
        (adapter("PREFIX_TUNING", num_virtual_tokens=30), 30),
        (adapter("PROMPT_TUNING"), 0),  # PEFT says what is missing
        (adapter("PROMPT_TUNING", num_virtual_tokens="8"), 0),
        (adapter("PROMPT_TUNING", num_virtual_tokens=True), 0),
        (adapter("LORA", num_virtual_tokens=8), 0),
        (None, 0),
    ],
)
def test_a_soft_prompt_takes_positions(made: Adapter | None, count: int) -> None:
    assert virtual_tokens(made) == count


def test_a_prefix_is_a_cache_and_a_prompt_is_not() -> None:
    assert needs_of(adapter("PREFIX_TUNING")).holds_cache
    assert not needs_of(adapter("P_TUNING")).holds_cache


def test_adalora_is_told_the_number_of_steps_and_of_each_step() -> None:
    needs = needs_of(adapter("ADALORA"))
    assert (needs.steps, needs.allocates) == ("total_step", True)


# Initialisation


@pytest.mark.parametrize(
    ("given", "name"),
    [("PiSSA", "pissa"), ("pissa_niter_4", "pissa_niter_4"), (True, ""), (False, ""), (None, "")],
)
def test_only_a_named_initialisation_has_a_name(given: object, name: str) -> None:
    assert initialisation(adapter(init_lora_weights=given)) == name


def test_an_initialisation_from_data_reads_training_rows() -> None:
    assert reads_rows(adapter(init_lora_weights="eva"))
    assert not reads_rows(adapter(init_lora_weights="pissa"))
    assert not reads_rows(None)


@pytest.mark.parametrize(
    ("fields", "shared"),
    [
        ({"init_lora_weights": "eva"}, True),
        ({"init_lora_weights": "eva", "eva_config": {"rho": 1.0}}, False),
        ({"init_lora_weights": "eva", "eva_config": {"rho": 2.0}}, True),
        ({"init_lora_weights": "pissa"}, False),
        ({}, False),
    ],
)
def test_eva_shares_ranks_out_unless_its_rho_is_one(fields: dict[str, Any], shared: bool) -> None:
    assert shares_ranks(adapter(**fields)) is shared


def test_a_start_that_reads_values_is_left_out_where_there_are_none() -> None:
    assert plainly_initialised(adapter(r=4, init_lora_weights="pissa")) == adapter(r=4)
    kept = adapter(r=4, init_lora_weights="gaussian")
    assert plainly_initialised(kept) == kept


# Refusals


@pytest.mark.parametrize("kind", sorted(name for name, needs in TYPES.items() if needs.refused))
def test_a_type_that_no_run_can_train_is_refused_on_every_base(kind: str) -> None:
    for base in (PLAIN, NF4):
        reason = refusal(adapter(kind), base)
        assert reason is not None
        assert reason.startswith(f"{kind} is not trained: ")


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"layer_replication": [[0, 2]]}, True),
        ({"layer_replication": None}, False),
        ({"use_bdlora": True}, True),
        ({"use_bdlora": False}, False),
    ],
)
def test_a_field_is_refused_only_where_it_is_set(fields: dict[str, Any], refused: bool) -> None:
    reason = refusal(adapter(**fields), PLAIN)
    assert (reason is not None) is refused
    if reason is not None:
        assert next(iter(fields)) in reason


@pytest.mark.parametrize("kind", READS_BASE)
def test_a_method_that_reads_the_base_is_refused_on_packed_weights_alone(kind: str) -> None:
    assert refusal(adapter(kind), PLAIN) is None
    assert "a quantized base packs them" in (refusal(adapter(kind), NF4) or "")


@pytest.mark.parametrize("kind", sorted(CARRIED))
def test_a_method_names_the_schemes_that_can_carry_it(kind: str) -> None:
    assert refusal(adapter(kind), PLAIN) is None
    for scheme in ("nf4", "int8", "int4", "torchao_int8"):
        reason = refusal(adapter(kind), Quantization(type=scheme))
        assert (reason is None) is (scheme in CARRIED[kind]), scheme
        assert reason is None or ", ".join(CARRIED[kind]) in reason


def test_dora_is_carried_by_four_bits_of_bitsandbytes() -> None:
    dora = adapter(use_dora=True)
    assert refusal(dora, NF4) is None
    assert "LORA with use_dora" in (refusal(dora, INT8) or "")


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda"])
def test_a_start_that_changes_the_base_is_refused_on_a_quantized_one(start: str) -> None:
    assert refusal(adapter(init_lora_weights=start), PLAIN) is None
    reason = refusal(adapter(init_lora_weights=start), INT4)
    assert reason is not None
    assert "quantized a second time" in reason
    assert "int4" in reason


def test_loftq_needs_a_gpu() -> None:
    loftq = adapter(init_lora_weights="loftq")
    assert refusal(loftq, PLAIN, "cuda") is None
    assert "needs a GPU" in (refusal(loftq, PLAIN, "cpu") or "")


@pytest.mark.parametrize(
    "fields",
    [
        {"r": 16, "lora_alpha": 32},
        {"r": 16, "lora_alpha": 16, "use_rslora": True},
        {"r": 16, "lora_alpha": 16, "alpha_pattern": {"q_proj": 8}},
    ],
)
def test_loftq_makes_up_for_rounding_at_a_scale_of_one_alone(fields: dict[str, Any]) -> None:
    """PEFT writes the start undivided, so that a scale of 2 would add the correction twice."""
    refused = refusal(adapter(init_lora_weights="loftq", **fields), PLAIN, "cuda")
    assert "set lora_alpha = r (16)" in (refused or "")
    whole = adapter(init_lora_weights="loftq", r=16, lora_alpha=16)
    assert refusal(whole, PLAIN, "cuda") is None


def test_loftqs_own_variant_scales_by_one() -> None:
    found = planned("lora_loftq", device=GPU).adapter
    assert found is not None
    assert found.fields["lora_alpha"] == found.fields["r"]


# Optimizers


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "adamw_8bit"])
def test_usual_optimizers_train_adapters_and_whole_models(optimizer: str) -> None:
    assert optimizer_refusal(optimizer, adapter()) is None
    assert optimizer_refusal(optimizer, None) is None


@pytest.mark.parametrize("optimizer", ["loraplus", "lorafa"])
def test_optimizers_made_for_lora_train_nothing_else(optimizer: str) -> None:
    assert optimizer_refusal(optimizer, adapter()) is None
    for other in (None, adapter("LOHA")):
        assert "two matrices" in (optimizer_refusal(optimizer, other) or "")


def test_lorafa_knows_neither_dora_nor_a_bias_and_holds_a_matrix_still() -> None:
    for fields in ({"use_dora": True}, {"lora_bias": True}):
        assert optimizer_refusal("lorafa", adapter(**fields)) is not None
        assert optimizer_refusal("loraplus", adapter(**fields)) is None
    assert held_still("lorafa") == "lora_A"
    assert held_still("adamw") is None


def test_projected_gradients_are_for_whole_models() -> None:
    for optimizer in ("galore", "apollo"):
        assert "small" in (optimizer_refusal(optimizer, adapter()) or "")
