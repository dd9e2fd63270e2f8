"""A tracker added from outside: a listener that keeps curves and scores of real runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.records.events import Advanced, Event, PhaseEnded, ProcessStarted, RunStarted
from harness.records.record import PHASES
from harness.records.store import RunStore
from harness.runs.batch import run_batch
from harness.runs.executor import LocalExecutor
from harness.runs.listener import Listener, RunResult
from harness.spec.plan import Plan
from tests.runs import forked
from tests.runs.small_run import Small


class Curves(Listener):
    """What a tracker sends to its server, kept in memory."""

    def __init__(self) -> None:
        self.events: defaultdict[str, list[Event]] = defaultdict(list)
        self.losses: defaultdict[str, list[float]] = defaultdict(list)
        self.scores: dict[str, dict[str, float]] = {}
        self.planned: list[str] = []
        self.ended = False

    def begin(self, plans: Sequence[Plan]) -> None:
        self.planned = [plan.run_name for plan in plans]

    def hear(self, plan: Plan, event: Event) -> None:
        self.events[plan.run_name].append(event)
        if isinstance(event, Advanced) and "loss" in event.numbers:
            self.losses[plan.run_name].append(event.numbers["loss"])

    def result(self, result: RunResult) -> None:
        assert result.record is not None
        scores = {score.metric: score.value for score in result.record.scores}
        self.scores[result.plan.run_name] = scores

    def end(self) -> None:
        self.ended = True


def test_an_added_tracker_hears_every_run_from_its_start_to_its_scores(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.runs.executor.supervise", forked.supervise)
    curves = Curves()
    store = RunStore(tmp_path / "runs")
    plans = [small.plan(), small.plan(seed=1)]
    results = list(run_batch(plans, LocalExecutor(store, slots=2, gpus=["5", "7"]), [curves]))
    assert curves.planned == [plan.run_name for plan in plans]
    assert curves.ended
    gpus: list[str] = []
    for result in results:
        record, name = result.record, result.plan.run_name
        assert record is not None
        assert record.status == "ok", record.problem
        assert not record.shared, "each has a GPU of its own"
        assert record.training is not None
        assert curves.losses[name] == [point.loss for point in record.training.losses]
        assert curves.scores[name] == {score.metric: score.value for score in record.scores}
        events = curves.events[name]
        assert isinstance(events[0], RunStarted)
        gpus.append(events[0].host[-5:])
        assert sum(isinstance(event, ProcessStarted) for event in events) == 1
        ended = [event.cost.name for event in events if isinstance(event, PhaseEnded)]
        assert ended == list(PHASES)
    assert sorted(gpus) == ["GPU 5", "GPU 7"]
    overlap = [curves.events[plan.run_name] for plan in plans]
    assert max(events[0].clock for events in overlap) < min(events[-1].clock for events in overlap)
