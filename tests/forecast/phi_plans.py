"""Plans on Phi-2's shape or a small one like it."""

from __future__ import annotations

from functools import cache
from typing import Any

from harness.forecast.memory import training_parts
from harness.spec.device import Device
from harness.spec.gpus import planned_gpu
from harness.spec.model import Model
from harness.spec.plan import Plan
from harness.spec.planning import make_plan
from harness.spec.registry import load_model, load_suite, load_variant
from harness.weights.shape import ParameterCount, count_plan

CPU = Device(kind="cpu", name="Plain CPU", memory_bytes=24 << 30, bfloat16=False, threads=2)
H100 = planned_gpu("h100")


def make(
    variant: str,
    training: dict[str, Any] | None = None,
    *,
    model: Model | str = "phi2",
    device: Device = H100,
    batch_size: int | None = None,
) -> Plan:
    suite = load_suite("quick")
    protocol = {"micro_batch_size": 2, "sequence_length": 512, **(training or {})}
    size = batch_size or protocol["micro_batch_size"]
    suite = suite.model_copy(
        update={"budget": suite.budget.model_copy(update={"batch_size": size})}
    )
    chosen = load_model(model) if isinstance(model, str) else model
    resolved = load_variant(variant, suite, {"training": protocol})
    return make_plan(resolved, suite, chosen, 0, device)


def small(**changes: Any) -> Model:
    phi = load_model("phi2")
    shape = {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 512,
    }
    return phi.model_copy(update={"config": {**phi.config, **shape, **changes}})


@cache
def counted(variant: str) -> ParameterCount:
    """Phi-2's parameters under a registered variant, counted once."""
    plan = make(variant)
    return count_plan(plan)


def training_peak(plan: Plan) -> int:
    """Predicted peak of a training step."""
    registered = plan.model.name == "phi2" and plan.model == load_model("phi2")
    counts = counted(plan.variant.split("+")[0]) if registered else count_plan(plan)
    return sum(training_parts(plan, counts).values())
