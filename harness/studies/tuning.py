"""Tuning: the search that a study asks for."""

from __future__ import annotations

from harness.spec.study import Tune
from harness.studies.arms import Arm
from harness.studies.search import Find, GridSearch, Search, rungs
from harness.studies.tpe import search_by_tpe


def search(arm: Arm, tune: Tune, find: Find) -> Search:
    """What is known of ``arm``'s learning rate, and which trials are to be run now."""
    if tune.trials == 1 or not arm.trains:
        return Search(arm.default, best=arm.default)
    if tune.method == "tpe":
        return search_by_tpe(arm, tune, find)
    return GridSearch(arm, tune, find).search()


def most_trials(arm: Arm, tune: Tune) -> int:
    """How many trials the search for ``arm``'s learning rate may take."""
    if tune.trials == 1 or not arm.trains:
        return 0
    return sum(count for _, count in rungs(tune)) + tune.widenings
