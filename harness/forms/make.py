"""Make: a form written to a folder, and the live model that such a folder holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.forms.again import open_again, write_again
from harness.forms.dequantize import dequantize
from harness.forms.merging import attach, merge
from harness.spec.form import Form
from harness.spec.plan import Plan
from harness.spec.variant import Dtype, Quantization

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.forms.gguf.write import Speech

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class Parts:
    """What a form is made from: the plan, the fetched base weights, the trained adapter.

    ``whole``: the weights at ``source`` are themselves the trained ones, and there is no adapter.
    """

    plan: Plan
    source: Path
    adapter: Path
    trusted: bool = False
    whole: bool = False

    def base(self, quantization: Quantization | None = None, dtype: Dtype | None = None) -> Any:
        """The base model, quantized as planned unless told otherwise, on the plan's device."""
        from harness.weights.load import load_base

        # a form is what is used elsewhere, with ordinary products
        precision = self.plan.precision.model_copy(update={"products": "compute"})
        if dtype is not None:
            precision = precision.model_copy(update={"compute": dtype})
        plan = self.plan.model_copy(update={"precision": precision})
        return load_base(plan, self.source, quantization, trust_remote_code=self.trusted)

    def of(self, folder: Path) -> Parts:
        """The same for a folder that a form was written to.

        Its vocabulary has grown already, and its configuration has the plan's positions.
        """
        from harness.weights.interpolation import interpolated

        grown = self.plan.model.model_copy(update={"added_tokens": 0})
        model = interpolated(grown, self.plan.interpolation)
        plan = self.plan.model_copy(update={"model": model, "interpolation": 1})
        return replace(self, plan=plan, source=folder)


def merged(parts: Parts, dtype: Dtype | None = None) -> PreTrainedModel:
    """The adapter merged into the original weights, in ``dtype`` (the plan's by default).

    The merge is done in float32, so that the sum of weight and change is rounded once.
    """
    import torch

    model = parts.base(Quantization(), "float32")
    if not parts.whole:
        model = merge(attach(model, parts.adapter), form="merged")
    return model.to(getattr(torch, dtype or parts.plan.stored))


def merged_dequantized(parts: Parts, dtype: Dtype | None = None) -> PreTrainedModel:
    """The adapter merged into the weights that training saw, expanded from the loaded modules."""
    import torch

    dense = dequantize(parts.base()).float()
    merged_model = merge(attach(dense, parts.adapter), form="merged_dequantized")
    return merged_model.to(getattr(torch, dtype or parts.plan.stored))


@dataclass(frozen=True)
class Making:
    """How a form is written: its dtype (None: the plan's), the tokenizer of a GGUF file, a voice.

    ``note`` hears what is done, ``tell`` how many tensors of a GGUF file are.
    """

    dtype: Dtype | None = None
    speech: Speech | None = None
    note: Callable[[str], None] = lambda _: None
    tell: Callable[[int, int], None] = lambda _done, _total: None


def write_form(parts: Parts, form: Form, folder: Path, making: Making | None = None) -> None:
    """Write the weights of a form into an existing folder.

    Raises:
        UserError: the method, the architecture or the GGUF type refuses.
    """
    how = making or Making()
    if not form.merges:
        for name in ADAPTER_FILES:
            shutil.copyfile(parts.adapter / name, folder / name)
        if parts.plan.interpolation > 1:
            _write_positions(parts, folder, how)
        return
    if form.kind == "merged_dequantized":
        how.note("merging into the weights that training saw")
        merged_dequantized(parts, how.dtype).save_pretrained(folder)
        return
    how.note("merging into the original weights")
    if form.quant is not None:
        from harness.forms.gguf.write import is_scaled, write_gguf

        model = merged(parts, "float32")
        how.note(f"writing {form.quant}")
        write_gguf(gguf_file(folder, form), model, how.speech, form.quant, how.tell)
        if is_scaled(model.config):
            how.note("llama.cpp reads this file whole; transformers leaves out its rotary scaling")
    elif form.kind == "merged":
        merged(parts, how.dtype).save_pretrained(folder)
    else:
        model = merged(parts, how.dtype)
        how.note(f"quantizing again: {form.asked}")
        write_again(parts, form, model, folder)


def _write_positions(parts: Parts, folder: Path, how: Making) -> None:
    from harness.weights.interpolation import save_positions
    from harness.weights.load import base_config

    factor = parts.plan.interpolation
    save_positions(base_config(parts.source, factor, trusted=parts.trusted), folder)
    how.note(
        f"the adapter was trained with positions divided by {factor}: load the base with "
        "config=AutoConfig.from_pretrained(this folder)"
    )


def gguf_file(folder: Path, form: Form) -> Path:
    """The one file of a GGUF form."""
    return folder / f"model-{form.quant}.gguf"


def open_form(parts: Parts, form: Form, folder: Path) -> Any:
    """The live model of a form that :func:`write_form` has written to ``folder``.

    A GGUF file's tensors are expanded into a plain model, so its products do not round their
    inputs as llama.cpp's do.
    """
    if not form.merges:
        return attach(parts.base(Quantization() if form.kind == "16bit" else None), folder)
    if form.quant is not None:
        import torch

        from harness.forms.gguf.read import read_weights

        model = parts.base(Quantization(), "float32")
        dtype = getattr(torch, parts.plan.stored)
        return read_weights(gguf_file(folder, form), model).to(dtype)
    if form.scheme is not None:
        return open_again(parts, form, folder)
    return parts.of(folder).base(Quantization())


def make(parts: Parts, form: Form, scratch: Path) -> Any:
    """The live model of a form, through an empty folder ``scratch``."""
    write_form(parts, form, scratch)
    return open_form(parts, form, scratch)
