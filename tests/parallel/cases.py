"""Cases: tiny trainings that two devices share, or one does alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.parallel.ranks import ALONE, Ranks
from harness.train.job import TrainJob
from tests.train.tiny import tiny_job, tiny_model, tiny_plan, tiny_rows

STEPS = 20


@dataclass(frozen=True)
class Case:
    """One training; ``full`` trains every weight."""

    speed: str = "plain"
    micro: int = 2
    conversations: int = 1
    full: bool = False
    training: dict[str, Any] = field(default_factory=dict)

    def job(self, ranks: Ranks = ALONE) -> TrainJob:
        """The job of one rank."""
        model = tiny_model()
        if self.full:
            model = model.unload()
            model.requires_grad_(requires_grad=True)
        rows = tiny_rows(conversations=self.conversations)
        devices = {} if ranks.count == 1 else {"devices": ranks.count}
        given = {"speed": self.speed, **devices, **self.training}
        plan = tiny_plan(steps=STEPS, batch=4, micro=self.micro, **given)
        return tiny_job(model, rows, plan, ranks=ranks)


CASES = {
    "plain": Case(),
    "plain, micro-batches of one row": Case(micro=1),
    "plain, packed": Case(conversations=3),
    "plain, every weight": Case(full=True),
    "fast": Case("fast"),
    "recorded, every weight": Case("recorded", full=True),
    "fast, micro-batches of one row, packed": Case("fast", micro=1, conversations=3),
}
