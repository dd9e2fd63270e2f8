"""Merging: whether PEFT can merge a method into weights, and doing it."""

from __future__ import annotations

import traceback
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import InvalidFile, RunError, Unpredicted, UserError
from harness.quantize.scheme import is_quantized
from harness.spec.model import Model
from harness.spec.variant import Adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

UNABLE = (NotImplementedError, ValueError, AttributeError)
"""What PEFT raises where a method has no merge: its own refusals, or no such function at all."""


def why_not_merged(adapter: Adapter, model: Model) -> str | None:
    """PEFT's reason why ``adapter`` cannot be merged into weights, or None if it can be.

    PEFT is asked by merging on the meta device, which needs no memory. An error that comes from
    the missing data, and not from the method, is no answer: then None, and merging itself tells.

    Raises:
        UnknownName, InvalidFile: as :func:`harness.weights.adapter.wrap`.
    """
    from harness.weights.shape import meta_model, wrapped_shapes
    from harness.weights.wrapping import adapter_config

    if adapter_config(adapter).is_prompt_learning:
        return f"{adapter.type} adds virtual tokens to the input and changes no weight"
    try:
        wrapped: Any = wrapped_shapes(partial(meta_model, model), adapter)
    except Unpredicted:  # the meta device cannot do it
        return None
    if not hasattr(type(wrapped.base_model), "merge_and_unload"):
        return f"PEFT has no merge for {adapter.type}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapped.merge_and_unload()
    except (RuntimeError, ValueError) as error:  # NotImplementedError is a RuntimeError
        if _raised_by_peft(error) and "meta tensor" not in str(error):
            return f"PEFT does not merge {adapter.type}: {error or 'not implemented'}"
    return None


def _raised_by_peft(error: Exception) -> bool:
    """Whether PEFT itself raised it; torch raises the same where the meta device lacks data."""
    import peft

    frames = traceback.extract_tb(error.__traceback__)
    return Path(frames[-1].filename).is_relative_to(Path(peft.__file__).parent)


def check_mergeable(adapter: Adapter, model: Model, form: str) -> None:
    """Refuse a form that needs a merge where the method has none.

    Raises:
        UserError: with PEFT's reason.
    """
    reason = why_not_merged(adapter, model)
    if reason is not None:
        raise UserError(
            f"the form {form} needs a merged adapter: {reason}",
            where=f"[adapter] type = {adapter.type}",
            expected="form adapter, or a method that can be merged (LORA, IA3, OFT, …)",
        )


def attach(base: PreTrainedModel, adapter: Path) -> Any:
    """``base`` with the trained adapter of a run on it, in evaluation mode.

    Raises:
        InvalidFile: the folder holds no adapter that PEFT can read, or one of another model.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    from harness.weights.mixing import let_dtypes_mix

    dtype = base.dtype
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = PeftModel.from_pretrained(base, str(adapter)).eval()
        let_dtypes_mix(model, dtype)
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        raise InvalidFile(
            f"PEFT cannot load the adapter: {error}",
            where=adapter,
            expected="adapter_config.json and adapter_model.safetensors of this base model",
        ) from error
    return model


def merge(wrapped: Any, *, form: str) -> PreTrainedModel:
    """The base model with the adapter in its weights.

    ``wrapped`` should hold float32 weights: the sum is then rounded once, when it is stored.

    Raises:
        RunError: the base is quantized.
        UserError: PEFT does not merge this method.
    """
    base = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped
    if is_quantized(base):
        raise RunError(
            "an adapter is never merged into quantized weights",
            expected="an unquantized base model",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            merged: PreTrainedModel = wrapped.merge_and_unload(safe_merge=True)
    except UNABLE as error:
        raise UserError(
            f"the form {form} needs a merged adapter, and PEFT does not merge this one: {error}",
            expected="form adapter",
        ) from error
    return merged.eval()
