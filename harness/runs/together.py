"""Together: several plans in one process, which load a base and train their adapters as one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.records.record import PEAKS, PhaseCost, PhaseName
from harness.runs.run import Run
from harness.runs.training_inputs import TrainingInputs

if TYPE_CHECKING:
    from harness.score.subject import Subject
    from harness.train.together.loop import Outcome


class TogetherRun:
    """Plans on their way through the phases: as one until they are trained, then one by one."""

    def __init__(self, runs: Sequence[Run]) -> None:
        """Take runs of plans that `harness.train.together.group` lets train together."""
        self.runs = tuple(runs)
        self._lead = self.runs[0]
        self._outcomes: dict[str, Outcome] = {}
        self.trained_at: float | None = None
        """On the clock of time.monotonic, when they stopped being one; None before that."""
        for run in self.runs:
            run.draft.together = len(self.runs)

    @contextmanager
    def _phase(self, name: PhaseName) -> Iterator[None]:
        """A phase of all: measured once, and each run is given its share."""
        for run in self.runs:
            run.log.start_phase(name)
        finished = len(self._lead.meter.costs)
        shares: list[PhaseCost] = []
        try:
            with self._lead.meter.phase(name):
                yield
        finally:
            shares = [_share(one, len(self.runs)) for one in self._lead.meter.costs[finished:]]
            for run in self.runs:
                run.draft.costs += shares
        for run in self.runs:
            for cost in shares:
                run.log.end_phase(cost)

    def train(self) -> None:
        """Everything up to the trained adapters."""
        from harness.score.validation import check_validation

        lead = self._lead
        for run in self.runs:
            run.begin()
        with self._phase("fetch"):
            source = lead.fetch()
        self._load_libraries("the tokenizer", "transformers.models.auto.tokenization_auto")
        with self._phase("prepare"):
            corpus, renderer, rows = lead.prepare(source)
            check_validation(lead.plan, corpus)
        assert rows is not None  # noqa: S101 - plans that train together train
        self._rows = rows
        self._load_libraries("what models need", "harness.weights.load", "peft")
        with self._phase("load"):
            model = lead.load(source)
        for run in self.runs:
            run.load_for_scoring()
        self._base: Subject = lead.subject(model, corpus, renderer)
        for run in self.runs:
            run.draft.corpus = lead.draft.corpus
            if run.plan.score.split == "held_out":  # tuning compares trained models only
                run.take_scores("score_base", partial(self._subject_of, run))
        modules = ("harness.train.together.loop", "harness.train.together.start")
        self._load_libraries("the trainer", "harness.weights.adapter", *modules)
        with self._phase("train"):
            outcomes = self._train()
        self._outcomes = {
            run.plan.fingerprint: outcome for run, outcome in zip(self.runs, outcomes, strict=True)
        }
        self.trained_at = time.monotonic()
        for run in self.runs:  # one after the other, the first at once
            run.log.note("waiting to be scored")

    def _load_libraries(self, what: str, *modules: str) -> None:
        for run in self.runs:
            run.load_libraries(what, *modules)

    def _subject_of(self, run: Run) -> Subject:
        return replace(self._base, plan=run.plan)

    def _train(self) -> list[Outcome]:
        from harness.train.together.loop import Member, train_together
        from harness.train.together.start import AdapterStart

        starts = []
        for run in self.runs:
            model = self._attached(run)
            starts.append(AdapterStart.of(model))
            if run is not self.runs[-1]:
                model.unload()
        subject = replace(self._base, model=model)
        members = []
        for run, start in zip(self.runs, starts, strict=True):
            job = run.job(subject, TrainingInputs(run.plan, self._rows))
            run.log.advance(0, job.steps)
            members.append(Member(job, start, run.log))
        outcomes = train_together(members)
        model.unload()
        return outcomes

    def _attached(self, run: Run) -> Any:
        return run.attach(self._subject_of(run), TrainingInputs(run.plan, self._rows))

    def finish(self, run: Run) -> None:
        """Score and save what one of the plans has trained.

        Raises:
            DivergedError: its loss was not finite.
        """
        from harness.train.checkpoint import restore_weights

        outcome = self._outcomes[run.plan.fingerprint]
        if outcome.error is not None:
            raise outcome.error
        model = self._attached(run)
        try:
            restore_weights(model, outcome.weights)
            model.eval()
            run.draft.training = outcome.result
            trained = replace(self._subject_of(run), model=model)
            run.take_scores("score", lambda: trained)
            with run.in_phase("save"):
                run.save(model)
        finally:
            model.unload()


def _share(cost: PhaseCost, count: int) -> PhaseCost:
    """One of ``count`` equal parts of a cost."""
    peaks = {name: getattr(cost, name) for name in PEAKS}
    joules = cost.energy_joules
    return cost.model_copy(
        update={
            **{name: None if size is None else size // count for name, size in peaks.items()},
            "seconds": cost.seconds / count,
            "energy_joules": None if joules is None else joules / count,
        }
    )
