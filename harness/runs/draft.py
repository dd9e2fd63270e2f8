"""Draft: what the phases of a run have found so far, from which its record is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.records.corpus_result import CorpusResult
from harness.records.events import (
    EventLog,
    PhaseEnded,
    PhaseStarted,
    Validated,
    ValidationStarted,
)
from harness.records.record import (
    Census,
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
from harness.records.validation import ValidationPoint
from harness.runs.ending import Ending
from harness.spec.plan import Plan


class RunLog(EventLog):
    """The event log of a run; knows the phase and the optimizer step under way."""

    phase: PhaseName | None = None
    step: int | None = None
    steps_done: int = 0
    validations_done: int = 0

    def start_phase(self, name: PhaseName) -> None:
        """Say that a phase begins."""
        self.phase, self.step = name, None
        self.emit(PhaseStarted.now(phase=name))

    def end_phase(self, cost: PhaseCost) -> None:
        """Say that a phase has ended, and what it cost."""
        self.emit(PhaseEnded.now(cost=cost))

    def start_validation(self, step: int) -> None:
        """Say that training pauses after ``step`` steps to be validated."""
        self.phase = "validate"
        self.emit(ValidationStarted.now(step=step))

    def end_validation(self, point: ValidationPoint) -> None:
        """Say what was found, and that training goes on."""
        self.phase = "train"
        self.validations_done += 1
        self.emit(Validated.now(point=point))

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
    adapter_sha256: dict[str, str] = field(default_factory=dict)
    resumed: int = 0
    shared: bool = False
    warm: bool = False
    together: int = 1
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
            phases=_with_earlier_training(costs, self.training, log),
            problem=problem,
            **fields,
        )


def _with_earlier_training(
    costs: tuple[PhaseCost, ...], training: TrainResult | None, log: RunLog
) -> tuple[PhaseCost, ...]:
    """Costs that count the steps and validations of earlier attempts too.

    The energy of such a phase is unknown, since nobody measured the whole.
    """
    if training is None:
        return costs
    points = () if training.validation is None else training.validation.points
    steps, validations = training.steps - log.steps_done, len(points) - log.validations_done
    earlier: dict[PhaseName, list[float]] = {
        "train": [one.seconds for one in training.losses[: max(0, steps)]],
        "validate": [one.seconds for one in points[: max(0, validations)]],
    }
    if earlier["validate"] and not log.validations_done:
        costs = (*costs, PhaseCost(name="validate", seconds=0.0))
    return tuple(
        cost.model_copy(
            update={"seconds": cost.seconds + sum(earlier[cost.name]), "energy_joules": None}
        )
        if earlier.get(cost.name)
        else cost
        for cost in costs
    )
