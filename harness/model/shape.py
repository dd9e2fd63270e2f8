"""Shape: the model of a plan without weights (meta device), and parameter counts from it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import InvalidFile
from harness.model.adapter import adapter_config
from harness.suite import Model
from harness.variant import Adapter, Method

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

OUTPUT_NAMES = ("lm_head", "embed_out", "output")


@dataclass(frozen=True)
class ParameterCount:
    """Logical parameter counts; a tied embedding counts once."""

    total: int
    trainable: int
    quantizable: int
    """Weights of linear layers that bitsandbytes would quantize (all but the output head)."""
    modules: int
    """How many linear layers those are."""


def transformers_config(model: Model) -> PretrainedConfig:
    """The model's configuration as transformers' own class, vocabulary grown by added tokens."""
    from transformers import AutoConfig

    fields: dict[str, Any] = dict(model.config)
    if "model_type" not in fields:
        raise InvalidFile(
            f"model {model.name} states no shape",
            where=f"models/{model.name}.toml, [config]",
            expected="model_type and the fields of its transformers configuration",
        )
    model_type = fields.pop("model_type")
    if model.added_tokens:
        fields["vocab_size"] = fields["vocab_size"] + model.added_tokens
    try:
        return AutoConfig.for_model(model_type, **fields)
    except (ValueError, TypeError) as error:
        raise InvalidFile(
            f"transformers does not accept the shape of {model.name}: {error}",
            where=f"models/{model.name}.toml, [config]",
        ) from None


def meta_model(model: Model) -> nn.Module:
    """The model on the meta device: every shape, no memory."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built: nn.Module = AutoModelForCausalLM.from_config(transformers_config(model))
    return built


def count_parameters(model: Model, method: Method, adapter: Adapter | None) -> ParameterCount:
    """Count what a run would load and train, without weights.

    ``total`` includes the adapter, as PEFT's ``print_trainable_parameters`` does.
    """
    built = meta_model(model)
    linear = list(quantizable_layers(built))
    quantizable = sum(layer.weight.numel() for layer in linear)
    if adapter is not None:
        built = _with_adapter(built, adapter)
    elif method == "none":
        built.requires_grad_(requires_grad=False)
    total = sum(parameter.numel() for parameter in built.parameters())
    trainable = sum(item.numel() for item in built.parameters() if item.requires_grad)
    return ParameterCount(total, trainable, quantizable, len(linear))


def quantizable_layers(model: nn.Module) -> Iterable[nn.Linear]:
    """Linear layers except the output head, as transformers hands them to bitsandbytes."""
    from torch import nn

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] not in OUTPUT_NAMES:
            yield module


def _with_adapter(model: nn.Module, adapter: Adapter) -> nn.Module:
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped: nn.Module = get_peft_model(
            model, adapter_config(adapter), autocast_adapter_dtype=False, low_cpu_mem_usage=True
        )
    return wrapped
