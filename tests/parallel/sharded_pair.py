"""Sharded pair: one of two processes that share layers of tiny bases; findings go into a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.distributed.fsdp import FullyShardedDataParallel

from harness.errors import RunError
from harness.parallel.ranks import Joined
from harness.quantize.scheme import find_scheme
from harness.weights import sharded
from harness.weights.by_layer import Filling, as_read, build_by_layer
from harness.weights.census import take_census
from harness.weights.sharded import Shards
from tests.parallel.sharded_cases import LAYERS, VARIANTS, base, logits, slopes, target


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
            "held": held_bytes(model),
            "census": take_census(model).model_dump_json(),
            "layers": len(model.model.layers) == LAYERS,
        }
    found["broken"] = broken("qlora_nf4_dq")
    Path(out, f"{ranks.index}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
