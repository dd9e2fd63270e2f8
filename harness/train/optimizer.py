"""Optimizer: the optimizer, learning-rate schedule and base dropout that both paths share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import RunError
from harness.spec.plan import Plan

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR


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

    Phi-2's published configuration drops 10 % of residuals, which no variant asks for.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapters = {
        id(inner)
        for module in model.modules()
        if isinstance(module, BaseTunerLayer)
        for inner in module.modules()
    }
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and id(module) not in adapters:
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            vars(module)["attention_dropout"] = 0.0
