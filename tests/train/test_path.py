"""Training paths: what one does not take is known when a plan is made."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import InvalidFile, UnknownName
from harness.spec.device import Device
from harness.spec.model import Model, RandomSource
from harness.spec.plan import Plan
from harness.spec.planning import make_plan
from harness.spec.registry import is_usual, load_suite, load_variant, variant_names
from harness.train.path import choose_path, path_names, path_of
from harness.train.stream.decoder import Decoder
from harness.train.stream.known import surely_takes
from harness.train.stream.linears import UnsupportedLayer
from harness.train.stream.refusal import refusal
from harness.weights.adapter import attach_adapter
from tests.architectures import ARCHITECTURES, tiny_causal
from tests.planned import BFLOAT16_CPU, CPU, GPU, planned

# PEFT refuses "all-linear" on layers whose kernels read the weights themselves
ADAPTER = {name: {"target_modules": ["in_proj"]} for name in ("falcon_h1", "mamba2")}
TAKEN = {"llama", "mistral", "qwen2", "phi"}


def plan_for(name: str, *, variant: str = "lora_bf16", **adapter: Any) -> Plan:
    suite = load_suite("quick", {"training": {"speed": "fast"}})
    chosen = load_variant(variant, suite, {"adapter": adapter} if adapter else None)
    model = Model(
        name=name,
        description="tiny",
        license="none",
        source=RandomSource(kind="random", tokenizer="smollm2_135m_instruct"),
        config=ARCHITECTURES[name].written(),
    )
    return make_plan(chosen, suite, model, 0, CPU)


def refused_by_the_decoder(plan: Plan, name: str) -> str | None:
    model = attach_adapter(tiny_causal(name), plan)  # type: ignore[arg-type]
    try:
        Decoder(model, torch.float32)
    except UnsupportedLayer as reason:
        return str(reason)
    return None


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_planning_and_training_refuse_the_same_models(name: str) -> None:
    plan = plan_for(name, **ADAPTER.get(name, {}))
    reason = path_of(plan).refuses(plan)
    assert reason == refused_by_the_decoder(plan, name)
    assert (reason is None) == (name in TAKEN)
    assert choose_path(plan).training.speed == ("fast" if reason is None else "plain")


@pytest.mark.parametrize(
    ("adapter", "reason"),
    [
        ({"r": 3}, None),
        ({"target_modules": ["q_proj"]}, None),
        ({"use_rslora": True}, None),
        ({"lora_dropout": 0.05}, "adapter dropout"),
        ({"use_dora": True}, "a LoRA variant such as DoRA"),
        ({"modules_to_save": ["lm_head"]}, "an adapted embedding or output layer"),
        ({"target_modules": ["lm_head", "q_proj"]}, "an adapted embedding or output layer"),
        ({"target_modules": ["embed_tokens", "q_proj"]}, "an adapted embedding or output layer"),
        ({"modules_to_save": ["norm"]}, "a trained norm"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_planning_and_training_refuse_the_same_adapters(
    name: str, adapter: dict[str, Any], reason: str | None
) -> None:
    plan = plan_for(name, **adapter)
    found = path_of(plan).refuses(plan)
    assert found == refused_by_the_decoder(plan, name)
    assert (found is None) == (reason is None)
    assert found is None or found.startswith(str(reason))


def test_biases_are_refused_where_there_are_any() -> None:
    for name, reason in (("llama", None), ("qwen2", "the trained parameter")):
        plan = plan_for(name, bias="all")
        found = path_of(plan).refuses(plan)
        assert found == refused_by_the_decoder(plan, name)
        assert found is reason or str(found).startswith(str(reason))


def test_an_adapter_that_peft_refuses_is_the_users_mistake() -> None:
    plan = plan_for("llama", target_modules=["no_such_layer"])
    with pytest.raises(InvalidFile, match="does not fit the model"):
        choose_path(plan)


@pytest.mark.parametrize(
    ("variant", "reason"),
    [("lora_int8", "a Linear8bitLt layer"), ("full_finetune", "full fine-tuning")],
)
def test_other_variants_that_the_fast_path_refuses(variant: str, reason: str) -> None:
    plan = plan_for("llama", variant=variant)
    assert path_of(plan).refuses(plan) == reason


def test_four_bits_are_taken() -> None:
    plan = plan_for("llama", variant="qlora_nf4_dq")
    assert choose_path(plan) == plan


def test_a_processor_with_bfloat16_chooses_the_fast_path() -> None:
    plan = planned("lora_bf16", device=BFLOAT16_CPU)
    assert plan.training.speed == "fast"
    assert not plan.substitutions
    asked = planned("lora_bf16", "suite.training.speed=fast", device=BFLOAT16_CPU)
    assert plan.fingerprint == asked.fingerprint


@pytest.mark.parametrize("device", [CPU, GPU], ids=lambda device: device.name)
def test_elsewhere_the_choice_is_the_plain_path_as_before(device: Device) -> None:
    plan = planned("qlora_nf4", device=device)
    asked = planned("qlora_nf4", "suite.training.speed=plain", device=device)
    assert (plan.fingerprint, plan.protocol) == (asked.fingerprint, asked.protocol)
    assert plan.training.speed == "plain"


def test_a_choice_that_is_not_the_fast_path_is_told() -> None:
    plan = planned("lora_dora", device=BFLOAT16_CPU)
    (found,) = plan.substitutions
    assert (found.key, found.asked, found.used) == ("training.speed", "auto", "plain")
    assert found.reason == "the fast path does not take a LoRA variant such as DoRA"
    assert choose_path(plan) == plan


def test_in_single_precision_there_is_nothing_to_gain() -> None:
    plan = planned("lora_bf16", "suite.precision.compute=float32", device=BFLOAT16_CPU)
    assert (plan.training.speed, plan.substitutions) == ("plain", ())


def test_plans_that_train_nothing_hold_no_choice() -> None:
    for plan in (
        planned("base", device=BFLOAT16_CPU),
        planned("lora_bf16", "budget.steps=0", device=BFLOAT16_CPU),
    ):
        assert plan.training.speed == "plain"


TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 64}
TEXT |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gemma3", "text_config": TEXT},
        {"model_type": "t5", "d_model": 32, "num_layers": 2, "vocab_size": 64},
    ],
    ids=lambda config: config["model_type"],
)
def test_a_model_that_the_fast_path_cannot_be_asked_about_takes_the_plain_one(
    config: dict[str, Any],
) -> None:
    """Its layers stand in another place, or it is no decoder: planning says so and goes on."""
    base = planned("lora_bf16", device=BFLOAT16_CPU)
    model = base.model.model_copy(update={"config": config})
    training = base.training.model_copy(update={"speed": "auto"})
    plan = choose_path(base.model_copy(update={"model": model, "training": training}))
    assert plan.training.speed == "plain"
    (found,) = plan.substitutions
    assert found.reason.startswith("the fast path does not take ")


def test_a_chosen_path_is_no_part_of_what_the_suite_decided() -> None:
    """So runs of before that choice stand on one ground with those of after it."""
    for settings in ((), ("suite.precision.compute=float32",)):
        chosen = planned("lora_dora", *settings, device=BFLOAT16_CPU)
        asked = planned("lora_dora", "suite.training.speed=plain", *settings, device=BFLOAT16_CPU)
        assert (chosen.fingerprint, chosen.protocol) == (asked.fingerprint, asked.protocol)


def known_plans() -> Iterator[Any]:
    """Plans of the variants that ship, and of unusual shapes, that are taken without a look."""
    suite = load_suite("quick")
    for name in variant_names():
        adapter = load_variant(name, suite).adapter
        if adapter is None or not is_usual(adapter):
            continue
        plan = planned(name, "suite.training.speed=fast", device=BFLOAT16_CPU)
        if surely_takes(plan):
            yield pytest.param(plan, id=name)
    base = planned("lora_bf16", device=BFLOAT16_CPU)
    for change in (
        {"head_dim": 128},
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
        {"num_key_value_heads": 9, "hidden_act": "swish", "rope_theta": 5e5},
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    ):
        model = base.model.model_copy(update={"config": {**base.model.config, **change}})
        plan = base.model_copy(update={"model": model})
        assert surely_takes(plan), change
        yield pytest.param(plan, id=",".join(change))


@pytest.mark.parametrize("plan", known_plans())
def test_what_is_surely_taken_is_taken_by_the_decoder(plan: Plan) -> None:
    assert refusal(plan) is None


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "mistral"},
        {"hidden_act": "gelu"},
        {"head_dim": 36},
        {"num_attention_heads": 7},
        {"pretraining_tp": 2},
    ],
    ids=str,
)
def test_an_unusual_shape_is_not_surely_taken(change: dict[str, Any]) -> None:
    plan = planned("lora_bf16", device=BFLOAT16_CPU)
    assert surely_takes(plan)
    model = plan.model.model_copy(update={"config": {**plan.model.config, **change}})
    assert not surely_takes(plan.model_copy(update={"model": model}))


def test_a_refusal_becomes_a_substitution_of_the_plan() -> None:
    plan = planned("lora_bf16", "training.speed=fast", "adapter.lora_dropout=0.1", device=GPU)
    (found,) = [item for item in plan.substitutions if item.key == "training.speed"]
    assert (found.asked, found.used) == ("fast", "plain")
    assert found.reason == (
        "the fast path does not take adapter dropout; "
        "the recorded path does not take adapter dropout"
    )
    assert plan.training.speed == "plain"
    assert choose_path(plan) == plan


def test_what_only_the_refused_path_has_is_given_up_with_it() -> None:
    settings = ["training.speed=fast", "training.gradient_checkpointing=true"]
    settings += ["training.activation_offload=true"]
    kept = planned("lora_bf16", *settings, device=GPU)
    assert kept.training.activation_offload
    given_up = planned("lora_bf16", *settings, "adapter.use_dora=true", device=GPU)
    assert not given_up.training.activation_offload
    keys = {item.key for item in given_up.substitutions}
    assert {"training.speed", "training.activation_offload"} <= keys


def test_a_plan_that_is_taken_keeps_its_fingerprint() -> None:
    for plan in (plan_for("phi"), planned("base"), planned("qlora_nf4")):
        assert choose_path(plan).fingerprint == plan.fingerprint


def test_single_precision_on_a_gpu_is_refused() -> None:
    plan = planned("lora_bf16", "training.speed=fast", "precision.compute=float32", device=GPU)
    assert "single precision" in {item.reason for item in plan.substitutions}.pop()


def test_an_unknown_path_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="unknown training path 'fats'") as caught:
        planned("lora_bf16", "training.speed=fats")
    assert "did you mean fast?" in str(caught.value)
    assert path_names() == ["fast", "plain", "recorded"]


def test_the_list_of_paths_and_a_usual_choice_need_no_deep_learning_library() -> None:
    import subprocess

    code = (
        "import sys; from harness.train.path import path_names, path_of, resolve; path_names(); "
        "from tests.planned import BFLOAT16_CPU, planned; "
        "assert planned('qlora_nf4', device=BFLOAT16_CPU).training.speed == 'fast'; "
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=600)
