"""Train pair: one of two processes that train tiny models together; losses go into a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed

from harness.parallel.ranks import Joined
from harness.records.events import Silence
from harness.train.path import train
from tests.parallel.cases import CASES


def main(out: str) -> None:
    """Train every case, and write losses and a digest of the weights of this rank."""
    torch.set_num_threads(1)
    ranks = Joined(cuda=False, silence_seconds=120)
    found = {}
    for name, case in CASES.items():
        job = case.job(ranks)
        result = train(job, Silence())
        weights = {
            key: weight.double().sum().item()
            for key, weight in job.model.named_parameters()
            if weight.requires_grad
        }
        losses = [point.loss for point in result.losses]
        found[name] = {"losses": losses, "weights": weights, "tokens": result.tokens.model_dump()}
    Path(out, f"{ranks.index}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
