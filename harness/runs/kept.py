"""Kept: what an attempt has found that a later attempt takes over."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.records.record import Environment, Generation, PhaseCost, PhaseName, Score
from harness.records.store import RunFolder, is_whole
from harness.spec.plan import Plan
from harness.spec.schema import Frozen
from harness.spec.storage import read_json, write_json

# A resumed run may continue after an edit of files that do not decide the result; those that do
# are compared as ``sources``.
NOT_COMPARED = ("commit", "dirty")
SCORED = ("score_base", "score")  # phases whose results are kept


class Starts(Frozen):
    """How often a run has been started in this environment."""

    environment: Environment
    starts: int


class PhaseResult(Frozen):
    """What a finished scoring phase found and cost."""

    fingerprint: str
    cost: PhaseCost
    scores: tuple[Score, ...]
    generations: tuple[Generation, ...]


class Kept:
    """Results in an attempt's folder that outlive a killed process."""

    def __init__(self, folder: RunFolder, plan: Plan) -> None:
        """Keep results of ``plan`` below ``folder``."""
        self._folder = folder
        self._fingerprint = plan.fingerprint

    def start(self, environment: Environment) -> int:
        """Enter a start; returns how many earlier ones are gone on from.

        Results from another environment (the harness's own code, package versions, settings,
        threads, GPU) are thrown away: a run put together from two would be neither's.
        """
        path = self._folder.path / "start.json"
        earlier = 0
        try:
            found = read_json(path, Starts)
        except HarnessError:
            found = None
        if found is not None and _comparable(found.environment) == _comparable(environment):
            earlier = found.starts
        else:
            self._forget()
        write_json(path, Starts(environment=environment, starts=earlier + 1))
        return earlier

    def _forget(self) -> None:
        for name in SCORED:
            self._path(name).unlink(missing_ok=True)
        for folder in (self._folder.checkpoint, self._folder.items, self._folder.adapter):
            shutil.rmtree(folder, ignore_errors=True)

    def _path(self, phase: str) -> Path:
        return self._folder.path / f"{phase}.json"

    def find(self, phase: PhaseName) -> PhaseResult | None:
        """The result of a phase that an earlier attempt finished, its per-item files included."""
        try:
            found = read_json(self._path(phase), PhaseResult)
        except HarnessError:
            return None
        whole = all(is_whole(score, self._folder.path) for score in found.scores)
        return found if whole and found.fingerprint == self._fingerprint else None

    def write(
        self, cost: PhaseCost, scores: Iterable[Score], generations: Iterable[Generation]
    ) -> PhaseResult:
        """Keep the result of a finished phase."""
        result = PhaseResult(
            fingerprint=self._fingerprint,
            cost=cost,
            scores=tuple(scores),
            generations=tuple(generations),
        )
        write_json(self._path(cost.name), result)
        return result


def left_in(folder: RunFolder) -> dict[str, int]:
    """What an attempt has left for a later one to go on from, and when each file was written."""
    results = [folder.path / f"{phase}.json" for phase in SCORED]
    found = (*results, *sorted(folder.checkpoint.glob("*.pt")))
    return {path.name: path.stat().st_mtime_ns for path in found if path.is_file()}


def _comparable(environment: Environment) -> dict[str, Any]:
    return environment.model_dump(exclude=set(NOT_COMPARED))
