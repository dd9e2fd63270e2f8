"""Two shallow models tell of a deep one, where its layers are alike and the adapter's too."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from harness.spec.model import Model
from harness.spec.plan import Plan
from harness.spec.registry import load_model, load_suite, load_variant, variant_names
from harness.spec.schema import parse
from harness.spec.variant import Adapter, Quantization
from harness.train.path import choose_path
from harness.train.stream import refusal
from harness.weights import shape
from harness.weights.depth import layers_alike
from harness.weights.shape import count_parameters, meta_model, wrapped_shapes
from harness.weights.wrapping import wrap
from tests.forecast.phi_plans import H100, make, small

NAMES = ["q_proj", "v_proj", "query_key_value"]


def lora(**fields: object) -> Adapter:
    given = {"type": "LORA", "r": 4, "target_modules": NAMES} | fields
    return parse(Adapter, given, where="x")


def of_kind(kind: str, **fields: Any) -> Model:
    config = {
        "model_type": kind,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 128,
    }
    return load_model("phi2").model_copy(update={"config": {**config, **fields}})


@pytest.mark.parametrize(
    "model",
    [
        of_kind("llama"),
        of_kind("llama", tie_word_embeddings=True),
        of_kind("phi"),
        of_kind("qwen2"),
        of_kind("falcon", new_decoder_architecture=True),
        of_kind("mixtral", num_local_experts=2),
    ],
    ids=lambda model: str(model.config["model_type"]),
)
@pytest.mark.parametrize("target", ["all-linear", NAMES], ids=str)
def test_counts_are_those_of_the_whole_model(model: Model, target: str | list[str]) -> None:
    adapter = lora(
        target_modules=target, use_dora=model.config["model_type"] == "llama", bias="lora_only"
    )
    count = count_parameters(model, "adapter", adapter, Quantization(type="nf4"))
    assert layers_alike(model, adapter)
    whole = wrapped_shapes(partial(meta_model, model), adapter)
    assert count.total == sum(one.numel() for one in whole.parameters())
    assert count.trainable == sum(one.numel() for one in whole.parameters() if one.requires_grad)
    base = shape._counted(shape._Asked((), "none", None, model, None, Quantization(type="nf4")))
    taken = ("linear", "quantized", "quantized_bytes", "modules", "largest")
    assert [getattr(count, name) for name in taken] == [getattr(base, name) for name in taken]


def test_layers_with_windows_or_experts_of_their_own_are_told_apart() -> None:
    windows = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3}
    assert not layers_alike(of_kind("qwen2", **windows))
    assert not layers_alike(of_kind("gemma2", head_dim=16))
    assert not layers_alike(of_kind("qwen2_moe", decoder_sparse_step=2, num_experts=2))
    assert not layers_alike(small())  # two layers are built faster than compared


def test_a_model_that_cannot_be_shallow_is_counted_as_it_is() -> None:
    """Gemma 3n's last layers take keys from those before them, which two layers do not have."""
    shared = {"num_hidden_layers": 10, "num_kv_shared_layers": 4, "head_dim": 16}
    model = of_kind("gemma3n_text", **shared, vocab_size_per_layer_input=64)
    assert not layers_alike(model)
    found = sum(one.numel() for one in meta_model(model).parameters())
    assert count_parameters(model, "none", None).total == found


@pytest.mark.parametrize(
    "fields",
    [
        {"layers_to_transform": [0, 1]},
        {"rank_pattern": {"layers.3.self_attn.q_proj": 8}},
        {"target_modules": ["layers.3.self_attn.q_proj"]},
        {"target_modules": r".*\.[0-3]\..*q_proj"},
        {"exclude_modules": r".*\.3\..*"},
        {"modules_to_save": ["lm_head"]},
        {"type": "VERA"},
    ],
)
def test_an_adapter_that_tells_layers_apart_is_counted_on_all_of_them(fields: Any) -> None:
    model, adapter = of_kind("llama"), lora(**fields)
    assert layers_alike(model)
    assert not layers_alike(model, adapter)
    whole = wrapped_shapes(partial(meta_model, model), adapter)
    trained = sum(one.numel() for one in whole.parameters() if one.requires_grad)
    assert count_parameters(model, "adapter", adapter).trainable == trained


def test_planning_a_study_puts_no_adapter_on_the_whole_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from harness.forecast import scoring
    from harness.forecast.memory import predict

    for known in (shape._count, refusal._probe, scoring._rehearsed):
        known.cache_clear()
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "partial_rotary_factor": 0.5}
    deep = small(num_hidden_layers=6, **heads)
    depths = []

    def seen(model: Any, adapter: Adapter, **options: bool) -> Any:
        depths.append(len(model.model.layers))
        return wrap(model, adapter, **options)

    monkeypatch.setattr(shape, "wrap", seen)

    def planned(variant: str, rate: float = 1e-4) -> Plan:
        training = {"learning_rate": rate, "speed": "fast"}
        plan = choose_path(make(variant, training, model=deep, device=H100))
        assert predict(plan) is not None
        return plan

    first = planned("lora_bf16")
    assert first.training.speed == "fast", first.substitutions
    assert sorted(set(depths)) == [1, 2]
    built = len(depths)
    planned("lora_bf16", rate=3e-4)
    planned("lora_pissa")
    planned("lora_plus")
    assert len(depths) == built  # other rates and beginnings have the same shapes
    planned("qlora_nf4")
    assert len(depths) > built


@pytest.mark.parametrize(
    "named",
    [
        {"target_modules": NAMES, "layers_to_transform": [2, 3]},
        {"target_modules": rf".*layers\.[23]\..*({'|'.join(NAMES)})"},
        {"target_modules": [f"layers.3.self_attn.{name}" for name in ("q_proj", "v_proj")]},
        {"target_modules": NAMES, "exclude_modules": r".*layers\.[01]\..*"},
    ],
)
def test_an_adapter_on_some_layers_is_rehearsed_on_the_whole_model(named: Any) -> None:
    from harness.forecast.memory import predict

    everywhere = make("lora_bf16", model=small(num_hidden_layers=4))
    assert everywhere.adapter is not None
    fields = everywhere.adapter.model_dump() | named
    half = everywhere.model_copy(update={"adapter": parse(Adapter, fields, where="x")})
    less, more = predict(half), predict(everywhere)
    assert less is not None
    assert more is not None
    assert less.by_phase["train"] < more.by_phase["train"]


def test_most_shipped_variants_are_planned_on_shallow_models() -> None:
    model = load_model("smollm2_135m_instruct")
    adapters = [load_variant(name, load_suite("quick")).adapter for name in variant_names()]
    alike = [layers_alike(model, one) for one in adapters if one is not None and one.type == "LORA"]
    assert sum(alike) > 0.8 * len(alike)
