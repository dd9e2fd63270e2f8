"""Optimizer: the optimizer, learning-rate schedule and base dropout that both paths share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from harness.errors import RunError
from harness.spec.plan import Plan

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR


LORA_PLUS_RATIO = 16.0  # of the learning rates of B and A: Hayou et al., 2024, section 5

# What the names of a module's random rates hold: attn_pdrop, layerdrop, jitter_noise, …
RANDOM = ("drop", "jitter")


def make_optimizer(
    model: nn.Module, plan: Plan, trained: Sequence[nn.Parameter] | None = None
) -> Optimizer:
    """The optimizer of ``plan`` over the trainable parameters of ``model``.

    ``trained`` stand for them where the model's own are spread over devices.

    Raises:
        RunError: nothing is trainable, or a bitsandbytes optimizer is asked for without a GPU.
    """
    import torch

    trainable = [one for one in trained or model.parameters() if one.requires_grad]
    if not trainable:
        raise RunError("no trainable parameters", hint="check adapter.target_modules")
    training = plan.training
    rate, decay = training.learning_rate, training.weight_decay
    if training.optimizer == "adamw":
        fused = plan.device.kind == "cuda"
        return torch.optim.AdamW(trainable, lr=rate, weight_decay=decay, fused=fused)
    if training.optimizer in MAKERS:
        return MAKERS[training.optimizer](model, rate, decay)
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


def _lora_plus(model: Any, rate: float, decay: float) -> Optimizer:
    import torch
    from peft.optimizers import create_loraplus_optimizer

    made: Optimizer = create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=rate,
        loraplus_lr_ratio=LORA_PLUS_RATIO,
        loraplus_weight_decay=decay,
        loraplus_lr_embedding=rate,  # PEFT's is 1e-6, whatever rate is asked for
    )
    made.param_groups = [group for group in made.param_groups if group["params"]]
    return made


def _lora_fa(model: Any, rate: float, decay: float) -> Optimizer:
    """PEFT's, over the adapter alone: it would also take every frozen weight of the base."""
    from peft.optimizers import create_lorafa_optimizer

    config = model.peft_config["default"]
    made: Optimizer = create_lorafa_optimizer(
        model, r=config.r, lora_alpha=config.lora_alpha, lr=rate, weight_decay=decay
    )
    for group in made.param_groups:
        per_weight = ("params", "names", "scaling_factors")
        rows = zip(*(group[key] for key in per_weight), strict=True)
        kept = [row for row in rows if "lora_" in row[1] or row[0].requires_grad]
        group.update(zip(per_weight, map(list, zip(*kept, strict=True)), strict=True))
    return made


def _muon(model: nn.Module, rate: float, decay: float) -> Optimizer:
    from harness.train.muon import MuonAndAdamW

    return MuonAndAdamW(model, rate, decay)


def _adafactor(model: nn.Module, rate: float, decay: float) -> Optimizer:
    from transformers.optimization import Adafactor

    trained = [weight for weight in model.parameters() if weight.requires_grad]
    fixed = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
    made: Optimizer = Adafactor(trained, lr=rate, weight_decay=decay, **fixed)
    return made


def _galore(model: nn.Module, rate: float, decay: float) -> Optimizer:
    """With the settings that transformers gives it."""
    from galore_torch import GaLoreAdamW

    how = {"rank": 128, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std"}
    made: Optimizer = GaLoreAdamW(
        _projected(model, how), lr=rate, weight_decay=decay, no_deprecation_warning=True
    )
    return made


def _apollo(model: nn.Module, rate: float, decay: float) -> Optimizer:
    """With the settings that transformers gives it."""
    from apollo_torch import APOLLOAdamW

    how = {"rank": 128, "proj": "random", "scale_type": "channel", "update_proj_gap": 200}
    how |= {"scale": 1.0, "proj_type": "std"}
    made: Optimizer = APOLLOAdamW(_projected(model, how), lr=rate, weight_decay=decay)
    return made


def _projected(model: nn.Module, how: dict[str, Any]) -> list[dict[str, Any]]:
    """Groups: everything else, and the matrices of linear layers, whose gradients are projected."""
    from harness.quantize.layers import linear_layers

    inner = [layer.weight for _, layer in linear_layers(model)]
    taken = {id(weight) for weight in inner}
    rest = [weight for weight in model.parameters() if id(weight) not in taken]
    return [{"params": rest}, {"params": inner, **how}]


MAKERS: dict[str, Callable[[Any, float, float], Optimizer]] = {
    "loraplus": _lora_plus,
    "lorafa": _lora_fa,
    "muon": _muon,
    "adafactor": _adafactor,
    "galore": _galore,
    "apollo": _apollo,
}


# Modules and classes of what optimizers keep beside plain data: how they project gradients.
PROJECTORS = {
    "galore": (("galore_torch.galore_projector", "GaLoreProjector"),),
    "apollo": (
        ("apollo_torch.svd_projector", "GaLoreProjector"),
        ("apollo_torch.random_projector", "GradientProjector"),
    ),
}


def kept_classes(optimizer: str) -> list[type]:
    """The classes that a checkpoint of ``optimizer`` may hold beside plain data."""
    found = PROJECTORS.get(optimizer, ())
    return [getattr(import_module(module), name) for module, name in found]


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
