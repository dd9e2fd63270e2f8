"""Make: the live model of a form, from a plan, its base weights and the trained adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.forms.dequantize import dequantize
from harness.forms.merging import attach, merge
from harness.spec.form import Form
from harness.spec.plan import Plan
from harness.spec.variant import Dtype, Quantization

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Parts:
    """What a form is made from: the plan, the fetched base weights, the trained adapter."""

    plan: Plan
    source: Path
    adapter: Path
    trusted: bool = False

    def base(self, quantization: Quantization | None = None, dtype: Dtype | None = None) -> Any:
        """The base model, quantized as planned unless told otherwise, on the plan's device."""
        from harness.weights.load import load_base

        plan = self.plan
        if dtype is not None:
            precision = plan.precision.model_copy(update={"compute": dtype})
            plan = plan.model_copy(update={"precision": precision})
        return load_base(plan, self.source, quantization, trust_remote_code=self.trusted)


def as_trained(parts: Parts) -> Any:
    """The adapter on the base it was trained on."""
    return attach(parts.base(), parts.adapter)


def merged(parts: Parts, dtype: Dtype | None = None) -> PreTrainedModel:
    """The adapter merged into the original weights, in ``dtype`` (the plan's by default).

    The merge is done in float32, so that the sum of weight and change is rounded once.
    """
    import torch

    wrapped = attach(parts.base(Quantization(), "float32"), parts.adapter)
    return merge(wrapped, form="merged").to(getattr(torch, dtype or parts.plan.stored))


def merged_dequantized(parts: Parts, dtype: Dtype | None = None) -> PreTrainedModel:
    """The adapter merged into the weights that training saw, expanded from the loaded modules."""
    import torch

    dense = dequantize(parts.base()).float()
    merged_model = merge(attach(dense, parts.adapter), form="merged_dequantized")
    return merged_model.to(getattr(torch, dtype or parts.plan.stored))


def quantized_again(folder: Path, parts: Parts) -> PreTrainedModel:
    """A merged model, written to ``folder``, loaded as NF4 with the plan's compute dtype."""
    # The vocabulary of what was saved has grown already.
    grown = parts.plan.model.model_copy(update={"added_tokens": 0})
    plan = parts.plan.model_copy(update={"model": grown})
    again = Parts(plan, folder, parts.adapter, trusted=parts.trusted)
    double = plan.quantization.double
    model: PreTrainedModel = again.base(Quantization(type="nf4", double=double))
    return model


def make(parts: Parts, form: Form, scratch: Path) -> Any:
    """The live model of any form; ``scratch`` is a folder for what passes through files.

    A GGUF form is written and read back: its tensors are the dequantized ones of the file.
    """
    if form.kind == "training":
        return as_trained(parts)
    if form.kind == "16bit":
        return attach(parts.base(Quantization()), parts.adapter)
    if form.kind == "merged":
        return merged(parts)
    if form.kind == "merged_dequantized":
        return merged_dequantized(parts)
    if form.kind == "merged_4bit":
        merged(parts).save_pretrained(scratch)
        return quantized_again(scratch, parts)
    from harness.forms.gguf.read import read_weights
    from harness.forms.gguf.write import write_gguf

    assert form.quant is not None  # noqa: S101 - the parser refuses GGUF without a type
    model = merged(parts, "float32")
    path = scratch / "model.gguf"
    write_gguf(path, model, None, form.quant)
    return read_weights(path, model).to(model.dtype)
