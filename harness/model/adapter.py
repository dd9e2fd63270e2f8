"""Adapter: PEFT's configuration checked, and the adapter attached alike for every variant."""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING, Any

from harness.errors import InvalidFile, UnknownName
from harness.plan import Plan
from harness.variant import Adapter

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


def adapter_config(adapter: Adapter) -> PeftConfig:
    """PEFT's own configuration object for ``adapter``.

    Raises:
        UnknownName: PEFT knows no such adapter type, or the type no such field.
        InvalidFile: PEFT refuses a value.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    kinds = {str(getattr(kind, "value", kind)): cls for kind, cls in _mapping_items()}
    if adapter.type not in kinds:
        raise UnknownName("adapter type", adapter.type, kinds, where="[adapter] type")
    cls = PEFT_TYPE_TO_CONFIG_MAPPING[adapter.type]
    known = {field.name for field in dataclasses.fields(cls) if field.init}
    for name in adapter.fields:
        if name not in known:
            raise UnknownName(f"{adapter.type} adapter field", name, known, where="[adapter]")
    try:
        return cls(task_type="CAUSAL_LM", **adapter.fields)
    except (TypeError, ValueError) as error:
        raise InvalidFile(
            f"PEFT refuses the {adapter.type} configuration: {error}", where="[adapter]"
        ) from None


def _mapping_items() -> Any:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    return PEFT_TYPE_TO_CONFIG_MAPPING.items()


def attach_adapter(model: PreTrainedModel, plan: Plan) -> PreTrainedModel:
    """Make ``plan``'s parameters trainable and everything else frozen.

    An adapter is created from the plan's seed, then cast to the planned dtype, so that it is the
    same on every base. ``prepare_model_for_kbit_training`` is not used: it would upcast the
    unquantized weights of quantized variants only, and no two variants would be alike.
    """
    import torch
    from peft import get_peft_model

    torch.manual_seed(plan.seed)
    model.requires_grad_(plan.method == "full")
    if plan.adapter is None:
        return model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(model, adapter_config(plan.adapter), autocast_adapter_dtype=False)
    dtype = getattr(torch, plan.precision.trainable)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return wrapped
