"""Group: which plans can train together, and in which company."""

from __future__ import annotations

import json
from collections.abc import Sequence

from harness.spec.methods import initialisation
from harness.spec.plan import UNDECIDING, Plan
from harness.spec.schema import leave_out

# What may differ between plans that share the forward pass of one base.
OWN = (
    "seed",
    "order_seed",
    "adapter.r",
    "adapter.lora_alpha",
    "adapter.use_rslora",
    "training.learning_rate",
    "training.schedule",
    "training.warmup_steps",
    "training.weight_decay",
    "training.max_grad_norm",
)
# Scales that differ from layer to layer are not those of one plan.
UNEVEN = ("rank_pattern", "alpha_pattern")
COMPUTED = ("bfloat16", "float32")  # float16 needs a gradient scaler of its own for each


def groups(plans: Sequence[Plan], most: int) -> list[list[Plan]]:
    """``plans`` in groups of at most ``most`` that can train together, each at its first place."""
    found: dict[str, list[list[Plan]]] = {}
    ordered: list[list[Plan]] = []
    for plan in plans:
        kind = _kind(plan) if most > 1 else None
        same = found.setdefault(kind, []) if kind is not None else []
        if not same or len(same[-1]) == most:
            same.append([])
            ordered.append(same[-1])
        same[-1].append(plan)
    return ordered


def _kind(plan: Plan) -> str | None:
    """Equal for plans that can train together; None for one that trains alone."""
    if not plan.trains or plan.training.speed != "fast" or _needs_its_own_loop(plan):
        return None
    data = plan.model_dump(mode="json")
    for key in (*OWN, *UNDECIDING):
        leave_out(data, key)
    if plan.budget.steps is None:  # then the order of rows decides how many steps there are
        data["order_seed"] = plan.seed if plan.order_seed is None else plan.order_seed
    return json.dumps(data, sort_keys=True)


def _needs_its_own_loop(plan: Plan) -> bool:
    fields = {} if plan.adapter is None else plan.adapter.fields
    return (
        plan.training.optimizer != "adamw"
        or plan.training.devices > 1
        or plan.training.gradient_checkpointing == "auto"
        or plan.precision.compute not in COMPUTED
        or plan.precision.products != "compute"
        or plan.validation.every > 0
        or initialisation(plan.adapter) not in ("", "gaussian")
        or any(fields.get(key) for key in UNEVEN)
    )
