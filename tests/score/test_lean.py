"""Adapters in few operations give what PEFT's own layers give, and those not known are left."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.quantize.bitsandbytes import keep_as_quantized
from harness.score import body
from harness.score.body import TreeBody
from harness.score.lean import LeanAdapters
from harness.score.rows import Rows
from tests.score.conftest import fast_engine, make_model
from tests.score.test_score_answers import requests
from tests.score.test_score_architectures import build, make_words

TOKENS = torch.arange(3, 60)[None]


@pytest.fixture(scope="module")
def words() -> Any:
    return make_words()


def adapted(dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """A model whose adapter in float32 matters."""
    settings = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False, **settings}
    model = peft.get_peft_model(make_model().to(dtype), peft.LoraConfig(**settings)).eval()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return model


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=TOKENS).logits
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_those_of_peft(dtype: torch.dtype) -> None:
    model = adapted(dtype)
    theirs = logits(model)
    with LeanAdapters(model).used() as count:
        ours = logits(model)
    assert count == 14, "of two layers"
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_four_bit_base(model_folder: Any) -> None:
    """PEFT rounds what it adds to such a layer; in float32 there is nothing to round."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    base = AutoModelForCausalLM.from_pretrained(
        model_folder, quantization_config=settings, dtype=torch.float32, device_map={"": "cpu"}
    )
    keep_as_quantized(base)
    config = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    model = peft.get_peft_model(base, config).eval()
    theirs = logits(model)
    with LeanAdapters(model).used() as count:
        torch.testing.assert_close(logits(model), theirs, rtol=1e-4, atol=1e-5)
    assert count == 14


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"lora_bias": True},
        {"target_modules": ["embed_tokens"]},
        {"target_parameters": ["model.layers.0.mlp.up_proj.weight"], "target_modules": []},
    ],
)
def test_what_adds_more_than_a_product_is_left_to_peft(settings: dict[str, Any]) -> None:
    model = adapted(**settings)
    theirs = logits(model)
    with LeanAdapters(model).used() as count:
        assert logits(model).equal(theirs)
    assert count == 0


def test_other_methods_are_left_to_peft() -> None:
    for config in (
        peft.IA3Config(task_type="CAUSAL_LM"),
        peft.LoHaConfig(target_modules=["q_proj"]),
    ):
        with LeanAdapters(peft.get_peft_model(make_model(), config)).used() as count:
            assert count == 0


def test_a_layer_is_as_it_is_set_when_it_is_run() -> None:
    model = adapted()
    bare = logits(make_model())
    lean = LeanAdapters(model)
    with lean.used():
        own = logits(model)
        with model.disable_adapter():
            torch.testing.assert_close(logits(model), bare)
        model.merge_adapter()
        torch.testing.assert_close(logits(model), own, rtol=1e-4, atol=1e-4)
        model.unmerge_adapter()
        model.add_adapter("other", peft.LoraConfig(r=2, target_modules=["q_proj"]))
        model.set_adapter("other")
        torch.testing.assert_close(logits(model), bare)


class Operations(TorchDispatchMode):
    """Counts what reaches the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found[str(func)] += 1
        return func(*args, **(kwargs or {}))


def test_passes_of_the_engine_are_lean_and_the_model_s_own_is_not() -> None:
    model = adapted(torch.bfloat16)
    engine = TreeBody(model)
    row = np.arange(3, 40)
    with torch.inference_mode():
        with Operations() as lean:
            ours = engine.run_rows([row])
        with Operations() as own:
            theirs = engine.run_alone(row, np.array([1]))[0]
    assert ours.equal(theirs)
    fewer = own.found["aten.mul.Tensor"] - lean.found["aten.mul.Tensor"]
    assert fewer == 14, "no layer's share is scaled in a pass of its own"


def test_norms_are_one_operation_where_launches_bind(monkeypatch: pytest.MonkeyPatch) -> None:
    row = np.arange(3, 40)
    found = []
    with torch.inference_mode():
        for devices in (frozenset[str](), frozenset(("cpu",))):
            monkeypatch.setattr(body, "FUSE_NORMS", devices)
            made = TreeBody(adapted())
            with Operations() as counted:
                found.append((made.run_rows([row]), counted.found["aten.rsqrt.default"]))
    assert [count for _, count in found] == [5, 0]
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)


def test_a_step_makes_its_mask_once(words: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not anew for every layer."""
    counts = []
    step = Rows.step

    def counted(self: Rows) -> None:
        with Operations() as operations:
            step(self)
        counts.append(operations.found["aten.masked_fill.Scalar"])

    monkeypatch.setattr(Rows, "step", counted)
    fast_engine(build("llama"), words).generate_until(requests(9), True)
    assert set(counts) == {1}
