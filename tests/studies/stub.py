"""A made-up world in which runs take no time: an executor that writes real records with items."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.records.events import Hear
from harness.records.record import RunRecord, Score
from harness.records.store import RunStore
from harness.spec.device import Device, DeviceChoice
from harness.spec.plan import Plan
from harness.spec.schema import parse
from harness.spec.study import Study
from harness.studies.agenda import Agenda, next_plans
from harness.studies.arms import StudyArms, compare_what
from harness.studies.findings import Findings
from harness.studies.steering import Steering
from tests.planned import CPU
from tests.store_records import record_of

TREES, BEST_RATE = 40, {"full": 5e-5}


@dataclass
class World:
    """How much worse each variant is, its best rate, and how noisy seeds and items are.

    ``fails`` says what becomes of a plan that does not end well: a status, or "" for well.
    """

    worse: dict[str, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    seed_sd: float = 0.002
    item_sd: float = 0.01
    trees: int = TREES
    fails: Callable[[Plan], str] = lambda _: ""
    device: Device = CPU

    def loss(self, plan: Plan) -> float:
        """Nats a token: a parabola over the logarithm of the learning rate."""
        name = plan.variant.partition("+training.")[0]
        best = self.rates.get(name, 5e-4)
        away = math.log(plan.training.learning_rate / best)
        steps = plan.budget.steps or 28
        return 2.0 + self.worse.get(name, 0.0) + 0.02 * away**2 + 0.2 / steps


def draws(plan: Plan, *more: int) -> np.random.Generator:
    """Noise that belongs to a variant and a seed, the same on every machine."""
    return np.random.default_rng([zlib.crc32(plan.variant.encode()), plan.seed, *more])


@dataclass
class StubExecutor:
    """Runs plans in no time, and remembers which."""

    store: RunStore
    world: World
    ran: list[Plan] = field(default_factory=list)
    stop_after: int | None = None

    def device(self, kind: DeviceChoice) -> Device:  # noqa: ARG002
        return self.world.device

    def submit(self, plan: Plan, hear: Hear) -> Future[RunRecord]:  # noqa: ARG002
        if self.stop_after is not None and len(self.ran) >= self.stop_after:
            raise KeyboardInterrupt
        self.ran.append(plan)
        future: Future[RunRecord] = Future()
        future.set_result(self.run(plan))
        return future

    def run(self, plan: Plan) -> RunRecord:
        status = self.world.fails(plan)
        scores = () if status else (self._score(plan),)
        record = record_of(plan, status=status or "ok", scores=scores, seconds=10.0)
        self.store.write(record)
        return record

    def _score(self, plan: Plan) -> Score:
        split = plan.score.split
        own = draws(plan)
        trees = np.random.default_rng(7 if split == "held_out" else 8)
        loss = self.world.loss(plan) + self.world.seed_sd * own.standard_normal()
        loss = loss + 0.3 * trees.standard_normal(self.world.trees)
        loss = loss + self.world.item_sd * own.standard_normal(self.world.trees)
        tokens = trees.integers(50, 200, self.world.trees).astype(float)
        name = f"items/{split}-perplexity-after-training.parquet"
        path = self.store.folder(plan).path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        items = [f"{split}{index}" for index in range(self.world.trees)]
        table = {"item": items, "cluster": items, "numerator": loss * tokens, "denominator": tokens}
        pq.write_table(pa.table(table), path)
        return Score(
            task=split, metric="perplexity", stage="after",
            value=float(np.exp((loss * tokens).sum() / tokens.sum())), standard_error=None,
            n=self.world.trees, unit="per token", direction="lower", transform="exp",
            items=name, headline=True,
        )  # fmt: skip

    def cancel(self) -> None:
        """Nothing is under way."""


def study(**written: object) -> Study:
    """A study of two variants, with changes."""
    data = {
        "name": "made_up",
        "description": "d",
        "question": "Is there a difference?",
        "variants": ["lora_bf16", "qlora_nf4"],
        "reference": "lora_bf16",
        "tune": {"trials": 3},
        "seeds": {"least": 2, "most": 4},
        **written,
    }
    return parse(Study, data, where="study.toml")


@dataclass
class Bench:
    """A study, a store and a stub executor, driven by hand."""

    comparison: StudyArms
    executor: StubExecutor
    steering: Steering = field(default_factory=Steering)

    @classmethod
    def of(cls, folder: Path, world: World | None = None, **written: object) -> Bench:
        comparison = compare_what(study(**written), CPU)
        return cls(comparison, StubExecutor(RunStore(folder / "runs"), world or World()))

    def findings(self) -> Findings:
        """The store and the log of decisions, as somebody who has just come reads them."""
        return Findings(self.executor.store, self.executor.store.root.parent / "decisions.jsonl")

    def agenda(self) -> Agenda:
        """What is known to somebody who has just come."""
        return next_plans(self.comparison, self.findings().find, self.steering)

    def finish(self) -> Agenda:
        """Run everything; returns the last agenda."""
        agenda = self.agenda()
        while agenda.jobs:
            for job in agenda.jobs:
                self.executor.ran.append(job.plan)
                self.executor.run(job.plan)
            agenda = self.agenda()
        return agenda
