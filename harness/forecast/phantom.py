"""Phantom: the planned model on the meta device, with the modules it will be trained with."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from harness.spec.plan import Plan
from harness.spec.variant import Quantization
from harness.weights.adapter import adapter_config
from harness.weights.shape import OUTPUT_NAMES, transformers_config

if TYPE_CHECKING:
    from torch import nn

BLOCK = 64
NESTED_BLOCK = 256


def phantom_model(plan: Plan, layers: int) -> nn.Module:
    """The model of ``plan``, ``layers`` deep, as :mod:`harness.weights` would load and adapt it.

    Linear layers are bitsandbytes' own, with a quantization state, and adapters are PEFT's own,
    so that a forward pass makes the very tensors of a real one. Nothing has memory.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = transformers_config(plan.model)
    config.num_hidden_layers = layers
    config._attn_implementation = "sdpa"  # noqa: SLF001 - transformers' own switch
    stored = plan.stored
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, stored))
        if plan.quantization.type != "none":
            _quantize(model, plan)
    model.requires_grad_(plan.method == "full")
    if plan.adapter is not None:
        model = _adapt(model, plan)
    return model  # type: ignore[no-any-return]


def _adapt(model: Any, plan: Plan) -> Any:
    import torch
    from peft import get_peft_model

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        model = get_peft_model(
            model,
            adapter_config(plan.adapter),  # type: ignore[arg-type]
            autocast_adapter_dtype=False,
            low_cpu_mem_usage=True,
        )
    dtype = getattr(torch, plan.precision.trainable)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return model


def _quantize(model: Any, plan: Plan) -> None:
    """Put bitsandbytes' layers in place of the linear ones, the output head excepted."""
    import torch
    from torch import nn

    compute = getattr(torch, plan.precision.compute)
    for name, module in list(model.named_modules()):
        parent, _, child = name.rpartition(".")
        if type(module) is nn.Linear and child not in OUTPUT_NAMES:
            quantized = _quantized_linear(module, plan.quantization, compute)
            setattr(model.get_submodule(parent), child, quantized)
    # PEFT asks these flags which of its layers to use.
    model.is_loaded_in_8bit = plan.quantization.type == "int8"
    model.is_loaded_in_4bit = not model.is_loaded_in_8bit


def _quantized_linear(linear: nn.Linear, quantization: Quantization, compute: Any) -> nn.Module:
    import bitsandbytes
    import torch

    size = (linear.in_features, linear.out_features)
    has_bias = linear.bias is not None
    if quantization.type == "int8":
        # Outlier columns are left out (threshold 0): how many there are depends on the data.
        eight = bitsandbytes.nn.Linear8bitLt(*size, bias=has_bias, has_fp16_weights=False)
        weight = torch.empty(linear.weight.shape, dtype=torch.int8, device="meta")
        eight.weight = bitsandbytes.nn.Int8Params(weight, requires_grad=False)
        eight.state.CB, eight.state.is_training = weight, True
        eight.state.SCB = torch.empty(linear.out_features, device="meta")
        if has_bias:
            eight.bias.data = eight.bias.data.to(linear.bias.dtype)
        return eight  # type: ignore[no-any-return]
    four = bitsandbytes.nn.Linear4bit(
        *size,
        bias=has_bias,
        compute_dtype=compute,
        compress_statistics=quantization.double,
        quant_type=quantization.type,
    )
    count = linear.weight.numel()
    packed = torch.empty(((count + 1) // 2, 1), dtype=torch.uint8, device="meta")
    state = _four_bit_state(linear, quantization)
    four.weight = bitsandbytes.nn.Params4bit(
        packed, requires_grad=False, quant_state=state, bnb_quantized=True, module=four
    )
    four.quant_state = state
    if has_bias:
        four.bias.data = four.bias.data.to(linear.bias.dtype)
    return four  # type: ignore[no-any-return]


def _four_bit_state(linear: nn.Linear, quantization: Quantization) -> Any:
    import torch
    from bitsandbytes.functional import QuantState

    def constants(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(count, dtype=dtype, device="meta")

    blocks = -(-linear.weight.numel() // BLOCK)
    inner = None
    if quantization.double:
        inner = QuantState(
            absmax=constants(-(-blocks // NESTED_BLOCK)),
            blocksize=NESTED_BLOCK,
            code=constants(256),
            dtype=torch.float32,
        )
    return QuantState(
        absmax=constants(blocks, torch.uint8 if inner else torch.float32),
        shape=linear.weight.shape,
        code=constants(16),
        blocksize=BLOCK,
        quant_type=quantization.type,
        dtype=linear.weight.dtype,
        offset=constants(1)[0] if inner else None,
        state2=inner,
    )
