"""Sharded pair: one of two processes that share layers of tiny bases; findings go into a file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.distributed.fsdp import FullyShardedDataParallel

from harness.errors import LostDevice, RunError
from harness.parallel.ranks import Joined, noticing_lost
from harness.quantize.scheme import find_scheme
from harness.records.events import Silence
from harness.score.divided import likelihood_of
from harness.train.checkpoint import TrainingState, trainable_weights
from harness.train.shares import Shares
from harness.weights import sharded, trained_shards
from harness.weights.by_layer import Filling, as_read, build_by_layer
from harness.weights.census import take_census
from harness.weights.sharded import Shards
from harness.weights.trained_shards import TrainedShards, own_part
from tests.parallel.queries import as_data
from tests.parallel.sharded_cases import (
    BATCH_TOKENS,
    LAYERS,
    VARIANTS,
    base,
    full,
    logits,
    queries,
    slopes,
    target,
)


def spread(variant: str) -> tuple[Any, Shards]:
    """A base whose layers two processes share."""
    model, wanted = base(), target(variant, storage=True)
    shards = Shards("cpu")
    build_by_layer(model, find_scheme(wanted.quantization), wanted, Filling(as_read), shards)
    return model, shards


def held_bytes(model: Any) -> int:
    """Bytes of layers on this device between two forward passes: its shares, and what is whole."""
    handles = [one._handle for one in FullyShardedDataParallel.fsdp_modules(model) if one._handle]
    shares = sum(handle.flat_param._local_shard.nbytes for handle in handles)
    gathered = [handle.flat_param._full_param_padded for handle in handles]
    return shares + sum(whole.untyped_storage().nbytes() for whole in gathered)


def scores(model: Any, ranks: Joined) -> dict[str, Any]:
    """Answers that both compute together, and for how many tokens this one has run."""
    likelihood = likelihood_of(model, BATCH_TOKENS, Silence(), ranks)
    before = likelihood.computed_tokens
    answers = as_data(likelihood.answer(queries()))
    return {"answers": answers, "computed": likelihood.computed_tokens - before}


def broken(variant: str) -> str:
    """What is said where a layer loses its numbers while it is sharded."""
    whole = sharded.shard_layer

    def lose(layer: Any, device: str, name: str) -> Any:
        with torch.no_grad():
            for weight in layer.parameters():
                weight.zero_()
        return whole(layer, device, name)

    sharded.shard_layer = lose
    try:
        spread(variant)
    except RunError as error:
        return str(error)
    finally:
        sharded.shard_layer = whole
    return "nothing"


def spread_whole() -> tuple[Any, TrainedShards]:
    """A model whose every weight two processes share."""
    model, wanted, shards = full(), target("full_finetune"), TrainedShards("cpu")
    build_by_layer(model, find_scheme(wanted.quantization), wanted, Filling(as_read), shards)
    return model, shards


def broken_gradients() -> str:
    """What is said where gradients are averaged, not added up."""
    spread = trained_shards.spread

    def average(module: Any, device: str, **options: Any) -> None:
        spread(module, device, **options)
        module.set_gradient_divide_factor(2.0)

    trained_shards.spread = average
    try:
        spread_whole()
    except RunError as error:
        return str(error)
    finally:
        trained_shards.spread = spread
    return "nothing"


def checkpoint_bytes(model: Any, ranks: Joined) -> int:
    """What this device holds while a checkpoint of a model is written."""
    state = TrainingState("", (), trainable_weights(model), {"state": {}}, {})
    found = Shares(model, ranks).whole_state(state).weights.values()
    return sum(weight.untyped_storage().nbytes() for weight in found)


def abandoned(model: Any, ranks: Joined) -> str:
    """What the first device says when the process of the second has ended."""
    torch.distributed.barrier()
    if ranks.index == 1:
        os._exit(0)
    try:
        with noticing_lost():
            logits(model)
    except LostDevice as error:
        return str(error)
    return "nothing"


def main(out: str) -> None:
    """Load every variant, and write what its base gives."""
    torch.set_num_threads(1)
    ranks = Joined(cuda=False, silence_seconds=120)
    found: dict[str, Any] = {}
    for variant in VARIANTS:
        model, shards = spread(variant)
        found[variant] = {
            "difference": shards.difference,
            "logits": logits(model).tolist(),
            "slopes": slopes(model).tolist(),
            "again": logits(model).tolist(),
            "scores": scores(model, ranks),
            "held": held_bytes(model),
            "census": take_census(model).model_dump_json(),
            "layers": len(model.model.layers) == LAYERS,
        }
    found["broken"] = broken("qlora_nf4_dq")
    model, shards = spread_whole()
    found["full"] = {
        "difference": shards.difference,
        "logits": logits(model).tolist(),
        "scores": scores(model, ranks),
        "held": sum(own_part(weight.detach()).nbytes for weight in model.parameters()),
        "census": take_census(model).model_dump_json(),
        "checkpoint": checkpoint_bytes(model, ranks),
    }
    found["broken gradients"] = broken_gradients()
    Path(out, f"{ranks.index}.json").write_text(json.dumps(found))
    found["abandoned"] = abandoned(model, ranks)
    Path(out, f"{ranks.index}.json").write_text(json.dumps(found))
    os._exit(0)  # there is nobody to take leave of


if __name__ == "__main__":
    main(*sys.argv[1:])
