"""TPE: learning rates proposed by Optuna from the losses so far, as many for every variant."""

from __future__ import annotations

from types import ModuleType

from harness.errors import UserError
from harness.spec.study import Tune
from harness.studies.arms import Arm
from harness.studies.findings import Job
from harness.studies.search import Find, Search, Trial, best_of, edge_of, try_rate

FAILED_LOSS = 1e3  # nats a token, what a trial that diverged counts as


def search_by_tpe(arm: Arm, tune: Tune, find: Find) -> Search:
    """Replay the proposals; the first that has no record yet is what to run now.

    The default comes first, and the range is that of a grid of as many trials. Proposals follow
    from the seed and from the losses alone, so a driver that starts anew proposes the same. Where
    the best rate is the lowest or the highest that was tried, rates beyond it follow, as many as
    a grid is widened by.

    Raises:
        UserError: Optuna is not installed.
    """
    optuna = _optuna()
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=tune.seed))
    study.enqueue_trial({"rate": arm.default})
    reach = tune.factor ** max((tune.trials - 1) / 2, 1)
    rates = optuna.distributions.FloatDistribution(
        arm.default / reach, arm.default * reach, log=True
    )
    trials: list[Trial] = []
    for number in range(tune.trials):
        asked = study.ask({"rate": rates})
        rate = arm.default if number == 0 else float(f"{asked.params['rate']:.3g}")
        found = try_rate(arm, tune, rate, 1.0, find)
        if isinstance(found, Job):
            return Search(arm.default, tuple(trials), (found,))
        trials.append(found)
        study.tell(asked, min(found.loss, FAILED_LOSS))
    return _widen(arm, tune, find, trials)


def _widen(arm: Arm, tune: Tune, find: Find, trials: list[Trial]) -> Search:
    """Try rates beyond the best one for as long as it has no worse neighbour on one side."""
    widened: list[float] = []
    while True:
        best = best_of(trials, arm.default)
        edge = edge_of(best, [trial.rate for trial in trials])
        if best is None or not edge or len(widened) == tune.widenings:
            break
        rate = best.rate * tune.factor if edge == "high" else best.rate / tune.factor
        widened.append(float(f"{rate:.3g}"))
        found = try_rate(arm, tune, widened[-1], 1.0, find)
        if isinstance(found, Job):
            return Search(arm.default, tuple(trials), (found,), widened=tuple(widened))
        trials.append(found)
    return Search(
        default=arm.default,
        trials=tuple(trials),
        best=arm.default if best is None else best.rate,
        widened=tuple(widened),
        edge=edge,
    )


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError:
        raise UserError(
            'tune.method = "tpe" needs the package optuna',
            hint='pip install "finetune-harness[tune]", or use method = "grid"',
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found: ModuleType = optuna
    return found
