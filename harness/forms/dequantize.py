"""Dequantize: the weights that training saw, expanded from the quantized modules themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.quantize.scheme import scheme_of

if TYPE_CHECKING:
    from torch import nn


def dequantize(model: Any) -> Any:
    """Replace every quantized linear layer by a plain one with the values its products use.

    The values are those of the layer's own scheme, in the dtype that it expands them to. Where a
    scheme's products round more than their weights (8 bits), no weight can express the rest.
    """
    from torch import nn

    for name, module in list(model.named_modules()):
        scheme = scheme_of(module)
        if scheme is None:
            continue
        values = scheme.dequantize(module)
        plain = nn.Linear(values.shape[1], values.shape[0], bias=False, device="meta")
        plain.weight = nn.Parameter(values, requires_grad=False)
        plain.bias = module.bias
        _put(model, name, plain.train(module.training))
    _forget_quantization(model)
    return model


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def _forget_quantization(model: Any) -> None:
    """Transformers refuses to save or cast a model that it believes to be quantized."""
    for holder, name in (
        (model.config, "quantization_config"),
        (model, "hf_quantizer"),
        (model, "quantization_method"),
    ):
        if hasattr(holder, name):
            delattr(holder, name)
    model.is_quantized = False
    for flag in ("is_loaded_in_4bit", "is_loaded_in_8bit"):
        if hasattr(model, flag):
            setattr(model, flag, False)
