"""Optimizer: the optimizer, learning-rate schedule and base dropout that both paths share."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from harness.errors import RunError
from harness.spec.plan import Plan

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR


# What the names of a module's random rates hold: attn_pdrop, layerdrop, jitter_noise, …
RANDOM = ("drop", "jitter")


def make_optimizer(model: nn.Module, plan: Plan) -> Optimizer:
    """The optimizer of ``plan`` over the trainable parameters of ``model``.

    Raises:
        RunError: nothing is trainable, or a bitsandbytes optimizer is asked for without a GPU.
    """
    import torch

    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise RunError("no trainable parameters", hint="check adapter.target_modules")
    training = plan.training
    rate, decay = training.learning_rate, training.weight_decay
    if training.optimizer == "adamw":
        fused = plan.device.kind == "cuda"
        return torch.optim.AdamW(trainable, lr=rate, weight_decay=decay, fused=fused)
    if plan.device.kind != "cuda":
        raise RunError(
            f"optimizer {training.optimizer} needs a GPU",
            where="training.optimizer",
            hint='use optimizer = "adamw"',
        )
    import bitsandbytes

    kind = bitsandbytes.optim.AdamW8bit
    if training.optimizer == "paged_adamw_8bit":
        kind = bitsandbytes.optim.PagedAdamW8bit
    optimizer: Optimizer = kind(trainable, lr=rate, weight_decay=decay)
    return optimizer


def make_rate_schedule(optimizer: Optimizer, plan: Plan, steps: int) -> LambdaLR:
    """Linear warm-up, then constant, or falling to 0 at ``steps`` (linear or half a cosine)."""
    from transformers import get_scheduler

    names = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
    rates: LambdaLR = get_scheduler(
        names[plan.training.schedule],
        optimizer,
        num_warmup_steps=plan.training.warmup_steps,
        num_training_steps=steps,
    )
    return rates


def silence_base_dropout(model: nn.Module) -> None:
    """Switch off the base model's own dropout; an adapter's stays as its author set it.

    Phi-2's published configuration drops 10 % of residuals, which no variant asks for. Dropout is
    a module in some models and a rate that a module keeps for a function in others (OPT, Bloom,
    MPT); rates that drop whole layers, and noise in routers, are of the same kind.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    prompts = getattr(model, "prompt_encoder", None)  # PEFT's, of a soft prompt
    adapters = {
        id(inner)
        for module in model.modules()
        if isinstance(module, BaseTunerLayer) or module is prompts
        for inner in module.modules()
    }
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    outermost = (model, base)  # whose configuration describes the model to others
    quiet: dict[int, Any] = {}
    for module in model.modules():
        if id(module) in adapters:
            continue
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):  # noqa: SLF001 - all kinds
            module.p = 0.0
        _zero_rates(vars(module))
        config = vars(module).get("config")
        if config is not None and module not in outermost:  # Falcon's layers ask it at every pass
            if id(config) not in quiet:
                quiet[id(config)] = copy.copy(config)
                _zero_rates(vars(quiet[id(config)]))
            vars(module)["config"] = quiet[id(config)]


def _zero_rates(values: dict[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, float) and any(word in name for word in RANDOM):
            values[name] = 0.0
