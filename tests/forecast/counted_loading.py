"""Counted loading: the tensors that live at once while bases are loaded by one of two processes.

The other one is not there: torch's own stand-in for a process group answers at once, with nothing.
So only sizes are right, and those are exact: they are read off torch's record of its allocator.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoConfig

from harness.quantize.scheme import Target, find_scheme
from harness.spec.plan import Plan
from harness.weights import sharded, trained_shards
from harness.weights.by_layer import Filling, build_by_layer, drawn_weights, empty_model
from harness.weights.sharded import Shards
from harness.weights.trained_shards import TrainedShards, around_whole

TOKENS = torch.arange(8)[None]


def most_bytes(act: Callable[[], Any]) -> int:
    """Most bytes of tensors at once, of those that ``act`` makes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        kept = act()
    assert record.profiler is not None
    results: Any = record.profiler.kineto_results
    sizes = sorted(
        (event.start_time_ns, event.extra_fields.alloc_size)
        for event in _allocations(results.experimental_event_tree())
    )
    live = most = 0
    for _, size in sizes:
        live += size
        most = max(most, live)
    del kept
    return most


def _allocations(events: Any) -> Iterator[Any]:
    waiting = list(events)
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.tag.name == "Allocation":
            yield event


def load(plan: Plan) -> Any:
    """The plan's base, as `harness.weights.load` would load it."""
    model = empty_model(AutoConfig.for_model(**plan.model.config), getattr(torch, plan.stored))
    shards = TrainedShards("cpu") if plan.spreads_training else Shards("cpu", plan.adapter)
    compute = getattr(torch, plan.precision.compute)
    target = Target(plan.quantization, compute, "cpu", compute)
    fill = drawn_weights(model, 0, "cpu")
    build_by_layer(model, find_scheme(plan.quantization), target, Filling(fill), shards)
    return model


@torch.inference_mode()
def score(model: Any) -> None:
    """A pass over a few tokens, as scores are taken."""
    with around_whole(model):
        model(input_ids=TOKENS, use_cache=False)


def main(*files: str) -> None:
    """Print what loading each plan of a JSON file takes, and a pass beside the weights."""
    torch.set_num_threads(1)
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    for module in (sharded, trained_shards):
        module.compare = lambda *_: 0.0  # type: ignore[attr-defined]
    found = []
    for file in files:
        plan = Plan.model_validate_json(Path(file).read_text())
        loading = most_bytes(lambda plan=plan: load(plan))  # type: ignore[misc]
        model = load(plan)
        found.append({"load": loading, "score": most_bytes(lambda model=model: score(model))})  # type: ignore[misc]
    print(json.dumps(found), flush=True)
    os._exit(0)  # there is nobody to take leave of


if __name__ == "__main__":
    main(*sys.argv[1:])
