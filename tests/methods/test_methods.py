"""Every registered method trains, scores, and comes back from its files as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.checks.plans import check_plans
from harness.errors import UserError
from harness.spec.methods import TYPES, needs_of, refusal, virtual_tokens
from harness.spec.registry import load_suite, load_variant, variant_names
from harness.spec.variant import Adapter, Quantization
from tests.methods.bench import Bench
from tests.methods.trial import carry_out, check_trial

SUITE = load_suite("quick")
ADAPTERS = [name for name in variant_names() if load_variant(name, SUITE).method == "adapter"]
# The cheapest of each kind run always, the rest in the session of their own.
OFTEN = ("prompt_tuning", "prefix_tuning", "adalora", "lora_pissa", "lora_embeddings")


@pytest.mark.parametrize("variant", OFTEN)
def test_a_method_of_each_kind_works(bench: Bench, tmp_path: Path, variant: str) -> None:
    check_trial(carry_out(bench.plan(variant), tmp_path))


def test_what_peft_has_saved_is_a_variant_that_works(bench: Bench, tmp_path: Path) -> None:
    from peft import IA3Config

    IA3Config(
        task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"],
        feedforward_modules=["down_proj"],
    ).save_pretrained(tmp_path / "mine")  # fmt: skip
    (tmp_path / "mine" / "training_params.json").write_text('{"max_steps": 9}')
    plan = bench.plan(str(tmp_path / "mine"))
    assert plan.variant.startswith("mine")
    assert [item.asked for item in plan.substitutions if item.key == "max_steps"] == [9]
    check_trial(carry_out(plan, tmp_path / "runs"))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "phi", "gpt_neo"])
@pytest.mark.parametrize("variant", [n for n in ADAPTERS if "_r" not in n and "_seq" not in n])
def test_every_method_works_or_is_refused_by_name(
    bench: Bench, tmp_path: Path, variant: str, family: str
) -> None:
    try:
        plan = bench.plan(variant, family)
        check_plans([plan])
    except UserError as refused:
        pytest.skip(refused.what)
    check_trial(carry_out(plan, tmp_path))


def adapter(kind: str, **fields: object) -> Adapter:
    return Adapter.model_validate({"type": kind, **fields})


def test_every_type_of_peft_is_trained_or_refused_with_a_reason() -> None:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    registered = {load_variant(name, SUITE).adapter for name in ADAPTERS}
    trained = {one.type for one in registered if one is not None}
    for kind in PEFT_TYPE_TO_CONFIG_MAPPING:
        name = str(getattr(kind, "value", kind))
        assert name in trained or refusal(adapter(name), Quantization()), name


def test_types_that_the_registry_names_are_pefts() -> None:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    known = {str(getattr(kind, "value", kind)) for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    assert set(TYPES) <= known


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("POLY", {}), ("XLORA", {}), ("CPT", {"cpt_token_ids": [1, 2]}), ("SHADOW", {})],
)
def test_what_no_run_can_train_is_refused_when_the_plan_is_made(
    bench: Bench, tmp_path: Path, kind: str, fields: dict
) -> None:
    import json

    file = tmp_path / "mine.toml"
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items())
    file.write_text(f'description = "mine"\n[adapter]\ntype = "{kind}"\n{lines}')
    with pytest.raises(UserError, match=f"{kind} is not trained") as caught:
        bench.plan(str(file))
    assert "[adapter]" in str(caught.value)


def test_an_initialisation_that_writes_into_the_base_is_refused_on_a_quantized_one(
    bench: Bench,
) -> None:
    with pytest.raises(UserError, match="quantized a second time"):
        bench.plan("lora_pissa", "llama", "quantization.type=nf4")


# Soft prompts


def test_virtual_tokens_shorten_the_window_and_say_so(bench: Bench) -> None:
    plan = bench.plan("prompt_tuning", "llama", "training.sequence_length=256")
    assert virtual_tokens(plan.adapter) == 32
    assert plan.training.sequence_length == 256 - 32
    (told,) = [item for item in plan.substitutions if item.key == "training.sequence_length"]
    assert "32 of them for virtual tokens" in told.reason
    (context,) = [item for item in plan.substitutions if item.key == "score.context"]
    assert (context.asked, context.used) == (256, 256 - 32)
    assert "32 virtual tokens of PROMPT_TUNING" in context.reason
    lora = bench.plan("lora_bf16", "llama")
    assert not any(item.key == "score.context" for item in lora.substitutions)


def test_more_virtual_tokens_than_positions_are_refused(bench: Bench) -> None:
    with pytest.raises(UserError, match="leave no room for text"):
        bench.plan("prompt_tuning", "llama", "adapter.num_virtual_tokens=256")


@pytest.mark.parametrize(
    ("variant", "setting"),
    [
        ("prompt_tuning", "packing"),
        ("prefix_tuning", "packing"),
        ("prefix_tuning", "gradient_checkpointing"),
        ("cartridge", "gradient_checkpointing"),
    ],
)
def test_what_a_soft_prompt_cannot_be_trained_with_is_switched_off_and_said(
    bench: Bench, variant: str, setting: str
) -> None:
    plan = bench.plan(variant, "llama", f"training.{setting}=true")
    assert not getattr(plan.training, setting)
    told = {item.key: (item.asked, item.used) for item in plan.substitutions}
    assert told[f"training.{setting}"] == (True, False)


def test_methods_that_need_nothing_are_not_in_the_table() -> None:
    assert needs_of(adapter("LOHA")) == needs_of(None)
    assert virtual_tokens(adapter("PROMPT_TUNING", num_virtual_tokens=7)) == 7
    assert virtual_tokens(adapter("LORA", r=7)) == 0


@pytest.mark.parametrize(
    ("variant", "scheme", "said"),
    [
        ("loha", "nf4", "LOHA reads the base's weights as they are"),
        ("lora_mica", "nf4", "init_lora_weights = 'mica' reads"),
        ("lora_dora", "int4", "LORA with use_dora takes quantized weights of the schemes nf4"),
        ("hira", "int4", "HIRA takes quantized weights of the schemes nf4"),
    ],
)
def test_what_cannot_be_put_on_a_quantized_base_is_refused_when_the_plan_is_made(
    bench: Bench, variant: str, scheme: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        bench.plan(variant, "llama", f"quantization.type={scheme}")
    if scheme == "int4":
        assert bench.plan(variant, "llama", "quantization.type=nf4").adapter is not None
