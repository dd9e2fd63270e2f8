"""Methods pair: one of two processes that train methods together; what each pair found goes out."""

from __future__ import annotations

import json
import logging
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from harness.parallel.ranks import ALONE, Joined, Ranks
from harness.records.events import Silence
from harness.spec.methods import needs_of
from harness.spec.plan import Plan
from harness.train.path import train
from tests.methods.bench import FAMILIES, Bench
from tests.methods.trial import begin

SHARED = ("training.devices=2", "training.parallel=data")
CLOSE = 2e-5  # nats of a loss: sums in another order, and what two more steps make of that
# GaLore's singular vectors make more of it: noise of one rounding in a gradient, 2e-5 on one device
COARSE = {"galore": 1e-4}


def learned(plan: Plan, ranks: Ranks) -> dict[str, Any]:
    """Losses of a training, and a sum over each trained weight."""
    torch.manual_seed(plan.seed)
    job = begin(plan, ranks=ranks)
    losses = [point.loss for point in train(job, Silence()).losses]
    weights = {
        name: weight.double().sum().item()
        for name, weight in job.model.named_parameters()
        if weight.requires_grad
    }
    return {"losses": losses, "weights": weights}


def flaw(bench: Bench, method: str, scheme: str, ranks: Ranks) -> str:
    """What two devices do otherwise than one, or "" where they learn the same."""
    base = () if scheme == "none" else (f"quantization.type={scheme}",)
    plan = bench.plan(method, FAMILIES[0], *base)
    alone = learned(plan, ALONE)
    together = learned(bench.plan(method, FAMILIES[0], *base, *SHARED), ranks)
    if any(other != together for other in ranks.gather(together)):
        return "the devices end with different weights"
    if not all(math.isfinite(loss) for loss in together["losses"]):
        return f"losses {together['losses']}"
    if draws(plan):  # each device its own numbers
        return ""
    apart = max(abs(a - b) for a, b in zip(alone["losses"], together["losses"], strict=True))
    close = COARSE.get(plan.training.optimizer, CLOSE)
    return "" if apart <= close else f"losses {together['losses']}, by one device {alone['losses']}"


def draws(plan: Plan) -> bool:
    """Whether training draws random numbers in a forward pass."""
    fields = {} if plan.adapter is None else plan.adapter.fields
    rates = [rate for name, rate in fields.items() if "dropout" in name]
    return needs_of(plan.adapter).draws or any(isinstance(r, float) and r > 0 for r in rates)


def main(folder: str, out: str, asked: str) -> None:
    """Try every pair of ``asked`` (JSON: lists of method and scheme) on the bench in ``folder``."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    ranks = Joined(cuda=False, silence_seconds=120)
    place = Path(folder)
    bench = Bench(place, {family: place / f"{family}_suite.toml" for family in FAMILIES})
    found = {}
    for method, scheme in json.loads(asked):
        try:
            said = flaw(bench, method, scheme, ranks)
        except Exception as error:  # noqa: BLE001 - told for every pair
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        found[f"{method} on {scheme}"] = said
    Path(out, f"{ranks.index}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
