"""Tiny real models, rows and plans for the tests of this room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

from harness.corpus.sequences import TrainingRow
from harness.spec.device import Device
from harness.spec.plan import Plan
from harness.spec.planning import make_plan
from harness.spec.registry import load_model, load_suite, load_variant
from harness.train.job import TrainJob
from harness.train.schedule import divided, schedule

# Of losses near 5 in single precision, before any step: 20 units in the last place, 1 to 3 seen.
ROUNDING = 1e-5
# Of weights whose losses and gradients are equal but for that; see `way_apart`. Seen: 0.002.
SAME_WAY = 0.05
SHAPE = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}


def tiny_model(family: str = "llama", *, init: bool = False, **lora: Any) -> Any:
    """A tiny model with LoRA on all linear layers; ``init`` False makes B differ from zero."""
    torch.manual_seed(0)
    if family == "llama":
        base: Any = LlamaForCausalLM(
            LlamaConfig(**SHAPE, num_key_value_heads=2, tie_word_embeddings=True)
        )
    else:
        base = PhiForCausalLM(PhiConfig(**SHAPE, partial_rotary_factor=0.5, resid_pdrop=0.1))
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **lora}
    return get_peft_model(
        base, LoraConfig(task_type="CAUSAL_LM", init_lora_weights=init, **settings)
    )


def way_apart(
    found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], start: Any
) -> float:
    """How far two trained sets of weights lie apart, as a share of the way from ``start``, a model.

    Adam divides a gradient by the root of its square. Where a gradient is next to nothing, rounding
    decides its sign, and with it a step of the learning rate there or back: of thousands of weights
    a few, on each processor others. Their share of the whole way is some thousandths, while another
    gradient or another rate takes all weights elsewhere.
    """
    begun = dict(start.named_parameters())
    with torch.no_grad():
        apart = torch.cat([(found[name] - weight).flatten() for name, weight in wanted.items()])
        way = torch.cat([(weight - begun[name]).flatten() for name, weight in wanted.items()])
        return float(apart.norm() / way.norm())


def tiny_row(rng: np.random.Generator, *lengths: int) -> TrainingRow:
    """A row of random conversations, three fifths of whose tokens carry loss."""
    total = sum(lengths)
    ids = rng.integers(0, 128, total).astype(np.int32)
    labels = np.where(rng.random(total) < 0.4, -100, ids).astype(np.int32)
    positions = np.concatenate([np.arange(size) for size in lengths]).astype(np.int32)
    return TrainingRow(ids, labels, positions, lengths)


def tiny_rows(count: int = 12, conversations: int = 1) -> tuple[TrainingRow, ...]:
    """Rows of ``conversations`` conversations each."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(5, 30, (count, conversations))
    return tuple(tiny_row(rng, *map(int, row)) for row in sizes)


def tiny_plan(steps: int = 4, batch: int = 4, micro: int = 2, **training: Any) -> Plan:
    """A plan for the CPU."""
    suite = load_suite(
        "quick",
        {
            "budget": {"steps": steps, "batch_size": batch},
            "training": {"micro_batch_size": micro, **training},
        },
    )
    device = Device(kind="cpu", name="test", bfloat16=False)
    return make_plan(load_variant("lora_bf16", suite), suite, load_model(suite.model), 0, device)


def tiny_job(model: Any, rows: tuple[TrainingRow, ...], plan: Plan, **more: Any) -> TrainJob:
    """A job over ``rows`` in the scheduled order."""
    tokens = [len(row.input_ids) for row in rows]
    order = divided(schedule(len(rows), plan.budget, plan.seed, tokens), tokens, plan)
    return TrainJob(model, rows, order, plan, pad_id=0, **more)
