"""Merged weights answer as the adapter does, for every method that PEFT merges."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch

from harness.errors import UserError
from harness.forms.dequantize import dequantize
from harness.forms.make import merged, merged_dequantized
from harness.forms.merging import attach, check_mergeable, why_not_merged
from harness.spec.plane import read_plane
from harness.spec.variant import Adapter, Quantization
from tests.forms.tiny_results import logits, make_plan, make_result, slow_but
from tests.methods.plane import WHOLE

METHODS = sorted(
    row.method
    for row in read_plane().rows
    if "none" in row.schemes and row.merge.state == "works" and row.merge != WHOLE
)
"""Every method that merges, as ``nox -s methods`` has found."""

# What the variants' own fields must become for a model of 64 hidden units and two layers.
SMALLER = {
    "c3a": ("adapter.block_size=32",),
    "fourierft": ("adapter.scaling=15",),
    "lora_last_half": ("adapter.target_modules=['q_proj', 'up_proj']",
                       "adapter.layers_to_transform=[1]"),
    "osf": ("adapter.effective_rank=16",),
    "road": ("adapter.group_size=32",),
    "vblora": ("adapter.vector_length=32",),
}  # fmt: skip
# Large sums and scales: a large change would show the noise of float32, not of merging.
SENSITIVE = {"lora_gaussian", "lora_olora", "randlora"}
# They ask for projections by name, or for layers of one shape, which Phi-3's fused ones are not.
APART = {
    "adamss", "boft", "c3a", "frod", "hra", "lora_attention", "lora_last_half", "miss", "osf",
    "peanut", "pvera", "randlora", "vblora", "vera", "waveft",
}  # fmt: skip


def families(method: str) -> tuple[str, str, str]:
    return ("llama", "qwen2", "mistral" if method in APART else "phi3")


@pytest.mark.parametrize(
    ("method", "family"),
    slow_but(
        [("lora_bf16", "llama"), ("ia3", "qwen2"), ("oft", "phi3"), ("shira", "llama")],
        [(method, family) for method in METHODS for family in families(method)],
    ),
)
def test_merged_answers_as_the_adapter(method: str, family: str, tmp_path: Path) -> None:
    """In float32, to 1e-5 of the largest logit, with random weights in every trained place."""
    own = ("precision.compute=float32", *SMALLER.get(method, ()))
    plan = make_plan(tmp_path, family, *own, variant=method)
    assert plan.adapter is not None
    assert why_not_merged(plan.adapter, plan.model) is None
    parts = make_result(tmp_path, plan, 0.005 if method in SENSITIVE else 0.05).parts
    base = logits(parts.base())
    as_adapter = logits(attach(parts.base(), parts.adapter))
    assert (as_adapter - base).abs().max() > 1e-4, (
        "the adapter changes nothing, so nothing is shown"
    )
    scale = as_adapter.abs().max()
    assert (logits(merged(parts)) - as_adapter).abs().max() <= 1e-5 * max(1, float(scale))


@pytest.mark.parametrize(
    ("variant", "family"),
    slow_but(
        [("qlora_nf4", "llama"), ("qlora_nf4_dq", "phi3")],
        product(["qlora_nf4", "qlora_nf4_dq", "qlora_fp4"], ("llama", "qwen2", "phi3")),
    ),
)
def test_merged_into_dequantized_answers_as_trained(
    variant: str, family: str, tmp_path: Path
) -> None:
    parts = make_result(tmp_path, make_plan(tmp_path, family, variant=variant)).parts
    trained = logits(attach(parts.base(), parts.adapter))
    dense = logits(merged_dequantized(parts))
    original = logits(merged(parts))
    scale = max(1.0, float(trained.abs().max()))
    assert (dense - trained).abs().max() <= 1e-5 * scale
    assert (original - trained).abs().max() > 1e-3 * scale, "4 bits should have cost something"


def test_eight_bits_expand_to_within_half_a_step(tmp_path: Path) -> None:
    """Products in 8 bits round their inputs too, so only the weights can be compared."""
    parts = make_result(tmp_path, make_plan(tmp_path, variant="lora_int8")).parts
    dense, original = dequantize(parts.base()), parts.base(Quantization())
    for name, module in original.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            found = dense.get_submodule(name).weight
            half_step = module.weight.abs().amax(dim=1, keepdim=True) / 127 / 2
            assert ((found - module.weight).abs() <= half_step * 1.1).all(), name


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("PROMPT_TUNING", {"num_virtual_tokens": 4}),
        ("PREFIX_TUNING", {"num_virtual_tokens": 4}),
        ("ADAPTION_PROMPT", {"adapter_len": 4, "adapter_layers": 1}),
        ("LORA", {"r": 4, "target_modules": ["q_proj"], "alora_invocation_tokens": [1, 2]}),
    ],
)
def test_methods_without_a_merge_say_so(
    method: str, fields: dict[str, object], tmp_path: Path
) -> None:
    model = make_plan(tmp_path).model
    adapter = Adapter.model_validate({"type": method, **fields})
    with pytest.raises(UserError, match="needs a merged adapter"):
        check_mergeable(adapter, model, "merged")


def test_a_merge_rounds_once(tmp_path: Path) -> None:
    parts = make_result(tmp_path, make_plan(tmp_path)).parts
    exact, rounded = merged(parts, "float32"), merged(parts, "bfloat16")
    for (name, weight), other in zip(
        exact.state_dict().items(), rounded.state_dict().values(), strict=True
    ):
        assert torch.equal(weight.to(torch.bfloat16), other), name
