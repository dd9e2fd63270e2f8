"""What a study will need is told before it starts, and comes true."""

from __future__ import annotations

from pathlib import Path

from harness.spec.plan import Plan
from harness.studies.outlook import outlook, seconds_left
from tests.studies.stub import Bench, World

WORSE = World(worse={"qlora_nf4": 0.05})


def unknown(plan: Plan) -> None:
    """Nothing is predicted."""
    del plan


def test_nothing_is_guessed(tmp_path: Path) -> None:
    tuning, default, best = outlook(Bench.of(tmp_path).agenda(), unknown, unknown)
    assert tuning.runs == (6, 12), "three rates each, and three widenings"
    assert (default.runs, best.runs) == ((4, 8), (0, 8))
    for stage in (tuning, default, best):
        assert (stage.done, stage.seconds, stage.joules, stage.memory) == (0, None, None, None)


def test_the_forecast_is_used_until_runs_tell(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, WORSE)
    sizes = {"lora_bf16": 5, "qlora_nf4": 3}
    stages = outlook(bench.agenda(), lambda _: 7.0, lambda plan: sizes[plan.variant])
    assert [stage.seconds for stage in stages] == [(42.0, 84.0), (28.0, 56.0), (0.0, 56.0)]
    assert {stage.memory for stage in stages} == {5}
    for job in bench.agenda().jobs[:2]:
        bench.executor.run(job.plan)
    tuning = outlook(bench.agenda(), lambda _: 7.0, unknown)[0]
    assert (tuning.done, tuning.seconds) == (2, (60.0, 120.0)), "runs take ten seconds here"


def test_what_is_left_is_told_once_every_variant_has_been_run(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, WORSE)
    assert seconds_left(bench.agenda()) is None
    for job in bench.agenda().jobs[:2]:
        bench.executor.run(job.plan)
    assert seconds_left(bench.agenda()) == (60 + 40 - 20, 120 + 80 + 80 - 20)
    assert seconds_left(bench.finish()) == (0, 0)


def test_what_is_run_lies_between_least_and_most(tmp_path: Path) -> None:
    for tune in ({"trials": 3}, {"trials": 8, "rungs": 3, "widenings": 1}, {"trials": 1}):
        bench = Bench.of(tmp_path / str(tune["trials"]), WORSE, tune=tune)
        before = outlook(bench.agenda(), unknown, unknown)
        after = outlook(bench.finish(), unknown, unknown)
        assert sum(stage.done for stage in after) == len(bench.executor.ran)
        for first, last in zip(before, after, strict=True):
            assert first.runs[0] <= last.done <= first.runs[1], (tune, first)


def test_what_is_not_trained_is_run_once(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, variants=["base", "base_nf4"], reference="base", tune={"trials": 5})
    (only,) = outlook(bench.agenda(), unknown, unknown)
    assert only.runs == (2, 2)
