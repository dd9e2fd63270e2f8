"""Search: the learning rates that are tried, in which order, and which one comes out best."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.records.store import RunFolder, StoredRun
from harness.spec.study import Tune
from harness.studies.arms import Arm
from harness.studies.findings import Job
from harness.studies.search import Search, Trial, best_of, grid, rate_at, rungs
from harness.studies.tuning import search
from tests.planned import planned
from tests.store_records import record_of

ARM = Arm(planned("lora_bf16", "corpus.validation_fraction=0.2"))
DEFAULT = ARM.default


def tuned(
    loss: Callable[[float, float], float | None], **settings: object
) -> tuple[Search, list[Job]]:
    """Search to the end by a loss of rate and share (None: the run failed), and what was run."""
    tune = Tune.model_validate({"trials": 3, **settings})
    ran: dict[Job, StoredRun] = {}
    order: list[Job] = []
    found = search(ARM, tune, ran.get)
    while found.missing:
        for job in found.missing:
            order.append(job)
            ran[job] = finished(job, loss(job.rate, job.share))
        found = search(ARM, tune, ran.get)
    return found, order


def finished(job: Job, loss: float | None) -> StoredRun:
    from harness.records.record import Score

    scores = ()
    if loss is not None:
        scores = (
            Score(
                task="validation", metric="perplexity", stage="after", value=math.exp(loss),
                standard_error=None, n=40, unit="per token", direction="lower", transform="exp",
                headline=True,
            ),
        )  # fmt: skip
    status = "failed" if loss is None else "ok"
    record = record_of(job.plan, status=status, scores=scores, seconds=10.0)
    return StoredRun(RunFolder(Path(job.key)), record)


def bowl(best: float) -> Callable[[float, float], float]:
    """A loss that is least at ``best`` on the logarithm of the rate."""
    return lambda rate, _: 2 + math.log(rate / best) ** 2


def test_the_grid_lies_around_the_default() -> None:
    tune = Tune(trials=5, factor=2.0)
    assert grid(1e-4, tune) == {-2: 2.5e-5, -1: 5e-5, 0: 1e-4, 1: 2e-4, 2: 4e-4}
    assert list(grid(1e-4, Tune(trials=4, factor=2.0))) == [-1, 0, 1, 2], "one more above"


def test_rates_have_three_digits_and_the_default_is_itself() -> None:
    tune = Tune(trials=3, factor=math.sqrt(10))
    assert rate_at(0.000123456, tune, 0) == 0.000123456
    assert rate_at(0.000123456, tune, 1) == 0.00039


def test_a_best_rate_inside_needs_no_more_trials() -> None:
    found, ran = tuned(bowl(DEFAULT), factor=3.0)
    assert found.best == DEFAULT
    assert len(ran) == 3
    assert (found.widened, found.edge) == ((), "")
    assert [trial.rate for trial in found.curve] == sorted(trial.rate for trial in found.trials)


@pytest.mark.parametrize("steps", [2, -2])
def test_a_best_rate_at_an_edge_is_followed_beyond_it(steps: int) -> None:
    best = rate_at(DEFAULT, Tune(trials=3, factor=3.0), steps)
    found, ran = tuned(bowl(best), factor=3.0, widenings=3)
    assert found.best == best
    assert len(found.widened) == 2
    assert len(ran) == 5
    assert found.edge == "", "it has worse neighbours on both sides now"


def test_a_grid_is_not_widened_for_ever() -> None:
    found, _ = tuned(bowl(DEFAULT * 1e6), factor=3.0, widenings=2)
    assert len(found.widened) == 2
    assert found.edge == "high"
    assert found.best == max(trial.rate for trial in found.trials)


@pytest.mark.parametrize("steps", [3, -3])
def test_proposals_go_on_beyond_a_best_rate_at_the_edge(steps: int) -> None:
    """The range of six trials ends 9.9 times from the default; the best is 16 times from it."""
    pytest.importorskip("optuna", reason="an extra")
    loss = bowl(DEFAULT * 2.5**steps)
    found, ran = tuned(loss, method="tpe", trials=6)
    rates = sorted(trial.rate for trial in found.trials)
    assert found.edge == ""
    assert found.best not in (rates[0], rates[-1])
    assert len(ran) == 6 + len(found.widened)
    stopped, _ = tuned(loss, method="tpe", trials=6, widenings=0)
    assert stopped.edge == ("high" if steps > 0 else "low")
    assert stopped.widened == ()


def test_halving_gives_the_whole_budget_to_the_better_ones() -> None:
    settings = {"trials": 9, "rungs": 3, "keep_one_in": 3, "factor": 2.0, "widenings": 0}
    tune = Tune.model_validate(settings)
    assert rungs(tune) == [(pytest.approx(1 / 9), 9), (pytest.approx(1 / 3), 3), (1.0, 1)]
    found, ran = tuned(bowl(DEFAULT), **settings)
    shares = [round(job.share, 3) for job in ran]
    assert shares == [0.111] * 9 + [0.333] * 3 + [1.0]
    assert found.best == DEFAULT
    assert [trial.rate for trial in found.curve] == [DEFAULT], "the whole budget alone counts"


def test_a_rate_whose_run_failed_is_not_best() -> None:
    def loss(rate: float, _: float) -> float | None:
        return None if rate > DEFAULT else 2 + rate

    found, _ = tuned(loss, factor=3.0)
    assert found.best is not None
    assert found.best < DEFAULT
    assert max(found.trials, key=lambda trial: trial.rate).loss == math.inf


def test_where_every_rate_fails_the_default_stays() -> None:
    found, ran = tuned(lambda *_: None, factor=3.0)
    assert found.best == DEFAULT
    assert len(ran) == 3, "nothing is gained by widening"


def test_of_equal_losses_the_nearest_to_the_default_is_taken() -> None:
    trials = [Trial(rate, 1.0, 2.0) for rate in (1e-5, 5e-5, 2e-4)]
    best = best_of(trials, 1e-4)
    assert best is not None
    assert best.rate == 5e-5
    assert best_of([Trial(1e-4, 1.0, math.inf)], 1e-4) is None


def test_one_trial_or_nothing_to_train_needs_no_run() -> None:
    assert search(ARM, Tune(trials=1), lambda _: None) == Search(DEFAULT, best=DEFAULT)
    base = Arm(planned("base"))
    assert search(base, Tune(trials=3), lambda _: None).missing == ()


def test_trials_are_scored_on_validation_alone() -> None:
    _, ran = tuned(bowl(DEFAULT), factor=3.0)
    for job in ran:
        assert job.stage == "tune"
        assert job.plan.score.split == "validation"
        assert job.plan.training.learning_rate == job.rate
        assert job.plan.score.tasks == (), "tasks wait for the verdict"
