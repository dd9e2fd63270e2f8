"""Merged weights are quantized again by every scheme, and stored where transformers reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import HarnessError, UnknownName, UserError
from harness.forms.again import check_stored, quantized_as
from harness.forms.check import check_form
from harness.forms.make import make, merged
from harness.quantize.scheme import find_scheme, schemes
from harness.spec.form import parse_form
from harness.spec.variant import Quantization
from tests.forms.tiny_results import Tiny, logits, make_plan, make_result

AGAIN = [name for scheme in schemes() if (name := scheme.name) != "none"]
# Four bits lie further from the merged weights than eight.
DISTANT = {"nf4", "fp4", "int4", "hqq", "nvfp4", "mxfp4"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A finished run of LoRA on a random llama."""
    folder = tmp_path_factory.mktemp("tiny")
    return make_result(folder, make_plan(folder))


def scheme_or_skip(name: str, tiny: Tiny) -> Any:
    scheme = find_scheme(Quantization(type=name))
    reason = scheme.refuses(Quantization(type=name), tiny.parts.plan.device)
    if reason is not None:
        with pytest.raises(UserError, match=f"the form {name}_again cannot be made"):
            check_form(tiny.parts.plan, parse_form(f"{name}_again"))
        pytest.skip(f"refused, as it should be: {reason}")
    return scheme


@pytest.mark.parametrize("name", AGAIN)
def test_every_scheme_quantizes_merged_weights_again(name: str, tiny: Tiny, tmp_path: Path) -> None:
    scheme = scheme_or_skip(name, tiny)
    model = make(tiny.parts, parse_form(f"{name}_again"), tmp_path)
    exact = merged(tiny.parts)
    layers = [m for m in model.modules() if scheme.holds(m)]
    assert len(layers) == 14, "seven linear layers in each of two blocks"
    first = "model.layers.0.mlp.down_proj"
    values = scheme.dequantize(model.get_submodule(first)).float()
    error = (values - exact.get_submodule(first).weight).abs().mean() / values.abs().mean()
    assert 0 < error < (0.2 if name in DISTANT else 0.05)
    assert 1e-4 < (logits(model) - logits(exact)).abs().mean() < 2
    assert ("quantization_config" in json.loads((tmp_path / "config.json").read_text())) == (
        scheme.stores
    )
    assert not (tmp_path / ".merged").exists()


@pytest.mark.parametrize("text", ["nf4_again:block_size=32", "fp4_again:double=true"])
def test_settings_reach_the_folder_and_plain_transformers(
    text: str, tiny: Tiny, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    form = parse_form(text)
    scheme = scheme_or_skip(str(form.scheme), tiny)
    ours = make(tiny.parts, form, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for name, module in ours.named_modules():
        if scheme.holds(module):
            other = theirs.get_submodule(name)
            assert torch.equal(scheme.dequantize(module), scheme.dequantize(other)), name
            weighed = scheme.weigh(other.weight, other)
            assert weighed is not None
            assert weighed.quantization == quantized_as(form, tiny.parts.plan).label


def test_constants_are_quantized_again_as_in_training(tmp_path: Path) -> None:
    trained = make_plan(tmp_path, variant="qlora_nf4_dq")
    assert quantized_as(parse_form("nf4_again"), trained).double
    assert quantized_as(parse_form("fp4_again"), trained).double
    assert not quantized_as(parse_form("nf4_again:double=false"), trained).double
    assert not quantized_as(parse_form("int8_again"), trained).double


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("nf5_again", UnknownName, "nf4"),
        ("none_again", UserError, "form merged"),
        ("hqq_again:bit=3", UnknownName, "bits"),
        ("hqq_again:bits=5", HarnessError, "form hqq_again:bits=5"),
        ("int8_again:double=true", HarnessError, "no double quantization"),
        ("nf4_again:double=7", HarnessError, "double"),
        ("gptq_again", UserError, "the form gptq_again cannot be made"),
    ],
)
def test_what_no_scheme_does_is_refused(
    text: str, kind: type[HarnessError], says: str, tiny: Tiny
) -> None:
    with pytest.raises(kind) as caught:
        check_form(tiny.parts.plan, parse_form(text))
    assert says in str(caught.value)


def test_weights_that_nobody_else_reads_are_not_exported(tiny: Tiny) -> None:
    check_stored(parse_form("merged"), tiny.parts.plan)
    check_stored(parse_form("nf4_again"), tiny.parts.plan)
    with pytest.raises(UserError, match="transformers reads no folder") as caught:
        check_stored(parse_form("int4_again"), tiny.parts.plan)
    assert "nf4_again" in str(caught.value)
    assert "form merged" in str(caught.value)
