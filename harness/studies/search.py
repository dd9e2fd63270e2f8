"""Search: the learning rates that are tried for an arm, and which came out best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from harness.records.store import StoredRun
from harness.records.validation import validation_loss
from harness.spec.study import Tune
from harness.studies.arms import Arm, trial_job
from harness.studies.findings import Job

Find = Callable[[Job], StoredRun | None]
Edge = Literal["", "low", "high"]


@dataclass(frozen=True)
class Trial:
    """A learning rate as tried with a share of the budget: its loss on the validation split.

    ``loss`` is in nats a token, infinite where the run failed or diverged.
    """

    rate: float
    share: float
    loss: float


@dataclass(frozen=True)
class Search:
    """What is known of an arm's learning rate.

    ``missing`` are trials to run now; while there are any, ``best`` is None. ``edge`` says on
    which side the best rate has no worse neighbour although the search was widened.
    """

    default: float
    trials: tuple[Trial, ...] = ()
    missing: tuple[Job, ...] = ()
    best: float | None = None
    widened: tuple[float, ...] = ()
    edge: Edge = ""

    @cached_property
    def curve(self) -> tuple[Trial, ...]:
        """Trials with the whole budget, by rate."""
        whole = [trial for trial in self.trials if trial.share >= 1]
        return tuple(sorted(whole, key=lambda trial: trial.rate))


def rungs(tune: Tune) -> list[tuple[float, int]]:
    """The shares of the budget that a search gives, each with the number of its trials."""
    if tune.method == "tpe":
        return [(1.0, tune.trials)]
    found, count = [], tune.trials
    for rung in range(tune.rungs):
        found.append((_share(tune, rung), count))
        count = math.ceil(count / tune.keep_one_in)
    return found


def _share(tune: Tune, rung: int) -> float:
    return float(tune.keep_one_in ** -float(tune.rungs - 1 - rung))


def grid(default: float, tune: Tune) -> dict[int, float]:
    """Learning rates by their place: the default's is 0."""
    low = -((tune.trials - 1) // 2)
    return {place: rate_at(default, tune, place) for place in range(low, low + tune.trials)}


def rate_at(default: float, tune: Tune, place: int) -> float:
    """The rate ``place`` steps above the default, to three digits."""
    return default if place == 0 else float(f"{default * tune.factor**place:.3g}")


def try_rate(arm: Arm, tune: Tune, rate: float, share: float, find: Find) -> Trial | Job:
    """The trial, or the job that is to be run for it."""
    job = trial_job(arm, rate, share, tune.seed)
    found = find(job)
    return job if found is None else Trial(rate, share, validation_loss(found.record))


def best_of(trials: Sequence[Trial], default: float) -> Trial | None:
    """The trial of least loss, of equal ones that nearest to the default; None if all failed."""
    fine = [trial for trial in trials if trial.loss < math.inf]
    key = lambda trial: (trial.loss, abs(math.log(trial.rate / default)), trial.rate)  # noqa: E731
    return min(fine, key=key, default=None)


def edge_of(best: Trial | None, rates: Sequence[float]) -> Edge:
    """On which side the best trial has no neighbour among the rates that were tried."""
    if best is None:
        return ""
    return "low" if best.rate == min(rates) else "high" if best.rate == max(rates) else ""


class GridSearch:
    """Powers of a factor around the default, cut by successive halving, widened at an edge.

    Source of the halving: Jamieson and Talwalkar, "Non-stochastic best arm identification and
    hyperparameter optimization" (2016).
    """

    def __init__(self, arm: Arm, tune: Tune, find: Find) -> None:
        self._arm, self._tune, self._find = arm, tune, find
        self._trials: list[Trial] = []
        self._places = grid(arm.default, tune)

    def search(self) -> Search:
        """What is known by now, and which trials are to be run next."""
        places = list(self._places)
        for rung in range(self._tune.rungs):
            tried, missing = self._try(places, _share(self._tune, rung))
            if missing:
                return self._unfinished(missing)
            if rung < self._tune.rungs - 1:
                count = math.ceil(len(places) / self._tune.keep_one_in)
                places = sorted(sorted(places, key=lambda place: tried[place].loss)[:count])
        return self._widen()

    def _try(self, places: Sequence[int], share: float) -> tuple[dict[int, Trial], tuple[Job, ...]]:
        tried: dict[int, Trial] = {}
        missing = []
        for place in sorted(places, key=abs):
            rate = rate_at(self._arm.default, self._tune, place)
            found = try_rate(self._arm, self._tune, rate, share, self._find)
            if isinstance(found, Job):
                missing.append(found)
            else:
                tried[place] = found
        self._trials += tried.values()
        return tried, tuple(missing)

    def _unfinished(self, missing: tuple[Job, ...], widened: Sequence[float] = ()) -> Search:
        trials = tuple(self._trials)
        return Search(self._arm.default, trials, missing, widened=tuple(widened))

    def _widen(self) -> Search:
        """Try rates beyond an edge for as long as the best one lies there."""
        places, widened = sorted(self._places), list[float]()
        while True:
            best = best_of([trial for trial in self._trials if trial.share >= 1], self._arm.default)
            edge = edge_of(best, [rate_at(self._arm.default, self._tune, one) for one in places])
            if not edge or len(widened) == self._tune.widenings:
                break
            place = places[0] - 1 if edge == "low" else places[-1] + 1
            places = sorted([*places, place])
            widened.append(rate_at(self._arm.default, self._tune, place))
            _, missing = self._try([place], 1.0)
            if missing:
                return self._unfinished(missing, widened)
        return Search(
            default=self._arm.default,
            trials=tuple(self._trials),
            best=self._arm.default if best is None else best.rate,
            widened=tuple(widened),
            edge=edge,
        )
