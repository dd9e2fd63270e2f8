"""Draft: what the phases of a run have found so far, from which its record is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.records.events import EventLog, PhaseEnded, PhaseStarted
from harness.records.record import (
    Census,
    CorpusResult,
    Environment,
    Generation,
    MemoryPrediction,
    PhaseCost,
    PhaseName,
    Problem,
    RunRecord,
    Score,
    TrainResult,
)
from harness.runs.ending import Ending
from harness.spec.plan import Plan


class RunLog(EventLog):
    """The event log of a run; knows the phase and the optimizer step under way."""

    phase: PhaseName | None = None
    step: int | None = None
    steps_done: int = 0

    def start_phase(self, name: PhaseName) -> None:
        """Say that a phase begins."""
        self.phase, self.step = name, None
        self.emit(PhaseStarted.now(phase=name))

    def end_phase(self, cost: PhaseCost) -> None:
        """Say that a phase has ended, and what it cost."""
        self.emit(PhaseEnded.now(cost=cost))

    def advance(self, done: int, total: int, **numbers: float) -> None:
        """Report progress inside the phase; in training, of optimizer steps."""
        if self.phase == "train":
            self.step = min(done + 1, total)
            self.steps_done += done > 0
        super().advance(done, total, **numbers)


@dataclass
class Draft:
    """The record of a run under way; it can be made however the run ends."""

    environment: Environment | None = None
    prediction: MemoryPrediction | None = None
    census: Census | None = None
    corpus: CorpusResult | None = None
    training: TrainResult | None = None
    scores: list[Score] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)
    adapter_bytes: int | None = None
    resumed: int = 0
    shared: bool = False
    costs: list[PhaseCost] = field(default_factory=list)

    def record(
        self, plan: Plan, log: RunLog, ending: Ending | None, started_at: str, seconds: float
    ) -> RunRecord:
        """The record of a run that has ended; well, if ``ending`` is None."""
        fields: dict[str, Any] = dict(vars(self))
        costs = tuple(fields.pop("costs"))
        fields["scores"] = tuple(self.scores)
        fields["generations"] = tuple(self.generations)
        problem = None
        if ending is not None:
            kind, message = ending.kind, ending.message
            problem = Problem(kind=kind, phase=log.phase, step=log.step, message=message)
        return RunRecord(
            plan=plan,
            fingerprint=plan.fingerprint,
            status="ok" if ending is None else ending.status,
            started_at=started_at,
            seconds=seconds,
            phases=_with_earlier_training(costs, self.training, log.steps_done),
            problem=problem,
            **fields,
        )


def _with_earlier_training(
    costs: tuple[PhaseCost, ...], training: TrainResult | None, steps_done: int
) -> tuple[PhaseCost, ...]:
    """Costs in which the training phase counts the steps that earlier attempts took.

    Its energy is unknown then, since nobody measured the whole.
    """
    if training is None or steps_done >= training.steps:
        return costs
    earlier = sum(point.seconds for point in training.losses[: training.steps - steps_done])
    return tuple(
        cost.model_copy(update={"seconds": cost.seconds + earlier, "energy_joules": None})
        if cost.name == "train"
        else cost
        for cost in costs
    )
