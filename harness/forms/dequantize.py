"""Dequantize: the weights that training saw, expanded from the quantized modules themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn


def dequantize(model: Any) -> Any:
    """Replace every quantized linear layer by a plain one with the values its products used.

    The values are exact: 4-bit codes times their block constants, as the layer's own forward pass
    expands them. The result is in the dtype that the weights had when they were quantized.

    Raises:
        UserError: a quantized layer of a kind that is not known here.
    """
    from torch import nn

    for name, module in list(model.named_modules()):
        weight = getattr(module, "weight", None)
        if weight is None or not _is_quantized(module, weight):
            continue
        values = _values(module, weight, name)
        plain = nn.Linear(values.shape[1], values.shape[0], bias=False, device="meta")
        plain.weight = nn.Parameter(values, requires_grad=False)
        plain.bias = module.bias
        _put(model, name, plain.train(module.training))
    _forget_quantization(model)
    return model


def _is_quantized(module: Any, weight: torch.Tensor) -> bool:
    return hasattr(weight, "quant_state") or hasattr(weight, "SCB") or hasattr(module, "qweight")


def _values(module: Any, weight: Any, name: str) -> torch.Tensor:
    from bitsandbytes import functional

    if getattr(weight, "quant_state", None) is not None:
        values: torch.Tensor = functional.dequantize_4bit(weight.data, weight.quant_state)
        return values
    scales = getattr(weight, "SCB", None)
    if scales is None:
        scales = getattr(getattr(module, "state", None), "SCB", None)
    if scales is None:
        raise UserError(
            f"{type(module).__name__} cannot be dequantized",
            where=name,
            expected="4-bit or 8-bit weights of bitsandbytes",
            hint="use the form merged, which starts from the original weights",
        )
    # one scale a row: code 127 stands for the row's largest magnitude (Dettmers et al., 2022)
    expanded: torch.Tensor = weight.data.float() * (scales.float()[:, None] / 127)
    return expanded


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
