"""Cases: tiny trainings that two devices share, or one does alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.parallel.ranks import ALONE, Ranks
from harness.train.job import TrainJob
from harness.weights.by_layer import decoder_layers
from harness.weights.trained_shards import TrainedShards
from tests.train.tiny import tiny_job, tiny_model, tiny_plan, tiny_rows

STEPS = 20


@dataclass(frozen=True)
class Case:
    """One training; ``full`` trains every weight, ``sharded`` spreads them over the ranks."""

    speed: str = "plain"
    family: str = "llama"
    micro: int = 2
    conversations: int = 1
    full: bool = False
    sharded: bool = False
    training: dict[str, Any] = field(default_factory=dict)

    def job(self, ranks: Ranks = ALONE, checkpoint: Path | None = None) -> TrainJob:
        """The job of one rank."""
        model = tiny_model(self.family)
        if self.full:
            model = model.unload()
            model.requires_grad_(requires_grad=True)
        if self.sharded and ranks.count > 1:
            spread(model.eval())
        rows = tiny_rows(conversations=self.conversations)
        devices = {} if ranks.count == 1 else {"devices": ranks.count}
        given = {"speed": self.speed, **devices, **self.training}
        plan = tiny_plan(steps=STEPS, batch=4, micro=self.micro, **given)
        return tiny_job(model, rows, plan, ranks=ranks, checkpoint=checkpoint)


def spread(model: Any) -> None:
    """Have every rank keep a part of each weight."""
    shards = TrainedShards("cpu")
    for name, _ in decoder_layers(model):
        shards.take(model, name)
    shards.close(model)


CASES = {
    "plain": Case(),
    "plain, micro-batches of one row": Case(micro=1),
    "plain, packed": Case(conversations=3),
    "plain, every weight": Case(full=True),
    "plain, every weight sharded": Case(full=True, sharded=True),
    "plain, every weight of an untied Phi sharded, micro-batches of one row": Case(
        family="phi", micro=1, full=True, sharded=True
    ),
    "fast": Case("fast"),
    "recorded, every weight": Case("recorded", full=True),
    "fast, micro-batches of one row, packed": Case("fast", micro=1, conversations=3),
}
RESUMED = "plain, every weight of an untied Phi sharded, micro-batches of one row"
