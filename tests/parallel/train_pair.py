"""Train pair: one of two processes that train tiny models together; losses go into a file."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

import torch
import torch.distributed

from harness.parallel.ranks import Joined
from harness.records.events import Silence
from harness.train.path import train
from harness.weights.trained_shards import whole
from tests.parallel.cases import CASES, RESUMED
from tests.train.test_train import StopAfter


def resumed(out: str, ranks: Joined) -> list[float]:
    """Losses of a training that was interrupted, and went on from its checkpoint."""
    case, folder = CASES[RESUMED], Path(out, "checkpoint")
    with suppress(KeyboardInterrupt):
        train(case.job(ranks, folder), StopAfter(9))
    ranks.gather(None)
    return [point.loss for point in train(case.job(ranks, folder), Silence()).losses]


def main(out: str) -> None:
    """Train every case, and write losses and a digest of the weights of this rank."""
    torch.set_num_threads(1)
    ranks = Joined(cuda=False, silence_seconds=120)
    found = {}
    for name, case in CASES.items():
        job = case.job(ranks)
        result = train(job, Silence())
        weights = {
            key: whole(weight.detach()).double().sum().item()
            for key, weight in job.model.named_parameters()
            if weight.requires_grad
        }
        losses = [point.loss for point in result.losses]
        found[name] = {"losses": losses, "weights": weights, "tokens": result.tokens.model_dump()}
    found[f"{RESUMED}, resumed"] = {"losses": resumed(out, ranks)}
    Path(out, f"{ranks.index}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
