"""Run: carry out one plan, phase after phase, in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.cache import Reuse
from harness.parallel.ranks import ALONE, Ranks, first, told_index
from harness.records.record import PhaseName
from harness.records.store import RunFolder
from harness.runs.draft import Draft, RunLog
from harness.runs.kept import Kept, PhaseResult
from harness.runs.options import RunOptions
from harness.runs.training_inputs import TrainingInputs, expected_counts
from harness.runs.validator import Validator
from harness.spec.plan import Plan

if TYPE_CHECKING:
    from harness.corpus.corpus import Corpus
    from harness.corpus.render import Renderer
    from harness.corpus.sequences import TrainingRows
    from harness.measure.meter import Meter
    from harness.score.subject import Scores, Subject
    from harness.train.job import TrainJob


STAGES: dict[str, Literal["before", "after"]] = {"score_base": "before", "score": "after"}
TOGETHER = "together"  # what the first device says when all take the same scores


@dataclass
class PhaseState:
    """What a phase says of itself while it is under way."""

    reused: bool = False


class Run:
    """One plan on its way through the phases."""

    def __init__(self, plan: Plan, folder: RunFolder, log: RunLog, options: RunOptions) -> None:
        """Take the plan, the folder to leave results in and the log to speak into."""
        from harness.measure.meter import Meter

        leads = told_index(plan.training.devices) == 0
        self._ranks: Ranks = ALONE
        self.plan = plan
        self.folder = folder
        self.log = log
        self.draft = Draft(shared=options.shared, warm=options.warm)
        self.meter: Meter = Meter(plan.device, shared=options.shared, leads=leads)
        self._kept = Kept(folder, plan)
        self.options = options
        self._reuse = Reuse(log, options.name if options.force else None)
        self._trusted = options.trust_remote_code and plan.model.trust_remote_code

    @contextmanager
    def in_phase(self, name: PhaseName) -> Iterator[PhaseState]:
        """Measure the body as a phase of this run, and say so."""
        self.log.start_phase(name)
        finished = len(self.meter.costs)
        state, told = PhaseState(), len(self.draft.costs)
        try:
            with self.meter.phase(name):
                yield state
        finally:
            self.draft.costs += [
                cost.model_copy(update={"reused": state.reused})
                for cost in self.meter.costs[finished:]
            ]
        for cost in self.draft.costs[told:]:
            self.log.end_phase(cost)

    def execute(self, ranks: Ranks = ALONE) -> None:
        """Carry out the plan, or this process's part of it; ``draft`` holds what it found."""
        from harness.score.validation import check_validation
        from harness.train.path import path_of

        leads = ranks.index == 0
        self.begin(ranks)
        with self.in_phase("fetch"), first(ranks):
            source = self.fetch()
        self.load_libraries("the tokenizer", "transformers.models.auto.tokenization_auto")
        with self.in_phase("prepare"), first(ranks):
            corpus, renderer, rows = self.prepare(source)
            check_validation(self.plan, corpus)
        inputs = None if rows is None else TrainingInputs(self.plan, rows)
        if leads:
            self._predict(inputs)
        self.load_libraries("what models need", "harness.weights.load", "peft")
        with self.in_phase("load"):
            model = self.load(source)
        self.load_for_scoring()
        if self.plan.trains:
            if self.plan.score.split == "held_out":  # tuning compares trained models only
                self.take_scores("score_base", lambda: self.subject(model, corpus, renderer))
            modules = path_of(self.plan).modules
            self.load_libraries("the trainer", "harness.weights.adapter", "peft", *modules)
            with self.in_phase("train"):
                model = self._train(self.subject(model, corpus, renderer), inputs)
        self.take_scores("score", lambda: self.subject(model, corpus, renderer))
        if leads:
            with self.in_phase("save"):
                self.save(model)

    def begin(self, ranks: Ranks = ALONE) -> None:
        """Look at where this runs and at what an earlier attempt has left."""
        from harness.measure.environment import take_environment
        from harness.score.check import check_task_data
        from harness.weights.fetch import quiet_libraries

        quiet_libraries()
        self._ranks = ranks
        self.draft.environment = take_environment(self.plan.device)
        if ranks.index == 0:
            self.draft.resumed = self._kept.start(self.draft.environment)
            self.log.note("checking the data for scoring")
            check_task_data(self.plan)

    def fetch(self) -> Path:
        """The folder of the base weights, which are fetched if need be."""
        from harness.runs.input_digests import check_inputs
        from harness.weights.fetch import fetch

        check_inputs(self.plan)
        return fetch(self.plan.model, self.log)

    def load_libraries(self, what: str, *modules: str) -> None:
        """Load libraries outside of any phase: it is no cost of the variant."""
        self.log.note(f"loading {what}")
        for name in modules:
            import_module(name)

    def load_for_scoring(self) -> None:
        """Load what scores need, those of the base included where another run has found them.

        So the phases after it begin with the same libraries in memory in both cases.
        """
        self.load_libraries("what scoring needs", "harness.score.take", "harness.score.reuse")
        from harness.score.take import libraries

        for name in libraries(self.plan.score):
            import_module(name)

    def prepare(self, source: Path) -> tuple[Corpus, Renderer, TrainingRows | None]:
        """The corpus, what renders it, and the rows to train on, if any are."""
        from harness.corpus.funnel import with_rows
        from harness.corpus.render import Renderer
        from harness.corpus.sequences import make_training_rows
        from harness.corpus.tokenised import tokenised_corpus
        from harness.weights.agreement import check_tokens
        from harness.weights.load import load_tokenizer

        self.log.note("reading the corpus")
        renderer = Renderer(
            load_tokenizer(source, trust_remote_code=self._trusted),
            self.plan.model.chat_template,
            self.plan.corpus.chat_date,
        )
        found = tokenised_corpus(self.plan.corpus, renderer, self._reuse)
        sequences = (*found.train, *found.held_out)
        largest = max(int(one.input_ids.max(initial=0)) for one in sequences)
        used = {**renderer.own_tokens, "a token of the corpus": largest}
        check_tokens(self.plan.model, source, used)
        training = self.plan.training
        rows = make_training_rows(found.train, training)
        self.draft.corpus = with_rows(found.corpus.result, rows, training.overflow)
        corpus = found.corpus
        if self.plan.score.split == "validation":  # what is not here cannot be chosen by
            corpus = replace(corpus, held_out=(), pairs=())
        return corpus, renderer, rows if self.plan.trains else None

    def _predict(self, inputs: TrainingInputs | None) -> None:
        """Outside of any phase: it is no cost of the variant."""
        from harness.forecast.memory import predict

        self.log.note("predicting memory")
        largest = None if inputs is None else inputs.largest
        self.draft.prediction = predict(self.plan, largest, self.log)

    def load(self, source: Path) -> Any:
        """The base model."""
        from harness.weights.census import check_census, take_census
        from harness.weights.load import load_base
        from harness.weights.shape import count_parameters

        self.log.note(f"loading {self.plan.model.name}")
        model = load_base(self.plan, source, trust_remote_code=self._trusted)
        self.draft.census = take_census(model)
        if not self.plan.trains:
            counts = count_parameters(self.plan.model, "none", None, self.plan.quantization)
            check_census(self.draft.census, self.plan, counts)
        return model

    def take_scores(
        self, phase: Literal["score_base", "score"], subject: Callable[[], Subject]
    ) -> None:
        """Scores before or after training, or those that an earlier attempt has kept."""
        if self._ranks.index > 0:
            with self.in_phase(phase):
                self._help(phase, subject())
            return
        kept = self._kept.find(phase)
        if kept is None:
            kept = self._score(phase, subject)
        else:
            self.draft.costs.append(kept.cost)
            self.log.end_phase(kept.cost)
        self.draft.scores += kept.scores
        self.draft.generations += kept.generations
        self._ranks.hand_out(None)  # the others need help no more

    def _help(self, phase: Literal["score_base", "score"], subject: Subject) -> None:
        """Compute for the first device what it asks for, until it has all its scores."""
        from harness.score.divided import help_score

        if not self.plan.sharded:
            help_score(subject)
            return
        while self._ranks.hand_out(None) is not None:
            with tempfile.TemporaryDirectory() as unused:
                self._every_form(subject, STAGES[phase], Path(unused))

    def _score(
        self, phase: Literal["score_base", "score"], subject: Callable[[], Subject]
    ) -> PhaseResult:
        from harness.score.items import Place
        from harness.score.reuse import base_scores

        stage = STAGES[phase]
        with self.in_phase(phase) as state:
            if stage == "after" and self.plan.trains:
                found = self._every_form(subject(), stage, self.folder.path)
            else:
                state.reused = True

                def take(folder: Path) -> Scores:
                    state.reused = False
                    return self._every_form(subject(), "before", folder)

                runs = self.folder.path.parents[3]  # above suite, variant, run and attempt
                place = Place(self.folder.path, stage, "training")
                found = base_scores(self.plan, runs, place, take, self._reuse)
        return self._kept.write(self.draft.costs[-1], found.scores, found.generations)

    def _every_form(
        self, subject: Subject, stage: Literal["before", "after"], folder: Path
    ) -> Scores:
        from harness.forms.make import Parts
        from harness.score.every_form import take_every_form
        from harness.weights.fetch import fetch

        def parts(adapter: Path) -> Parts:
            return Parts(self.plan, fetch(self.plan.model, self.log), adapter, self._trusted)

        if self.plan.sharded and self._ranks.index == 0:
            self._ranks.hand_out(TOGETHER)
        return take_every_form(subject, stage, folder, self.log, parts)

    def subject(self, model: Any, corpus: Corpus, renderer: Renderer) -> Subject:
        """What is scored."""
        from harness.score.subject import Subject

        return Subject(
            model=model,
            tokenizer=renderer.tokenizer,
            renderer=renderer,
            corpus=corpus,
            plan=self.plan,
            ranks=self._ranks,
        )

    def _train(self, subject: Subject, inputs: TrainingInputs | None) -> Any:
        from harness.train.path import train
        from harness.weights.census import check_census, take_census

        assert inputs is not None  # noqa: S101 - a plan that trains was given rows
        model = self.attach(subject, inputs)
        job = self.job(replace(subject, model=model), inputs)
        self.log.advance(0, job.steps)
        self.draft.training = train(job, self.log)
        # The training library must have left dtypes alone.
        check_census(take_census(model), self.plan, expected_counts(self.plan))
        return model.eval()

    def attach(self, subject: Subject, inputs: TrainingInputs) -> Any:
        """The model with the plan's adapter, or made ready for full fine-tuning."""
        from harness.weights.adapter import attach_adapter
        from harness.weights.census import check_census, take_census

        plan = self.plan
        self.log.note("attaching the adapter" if plan.adapter else "preparing full fine-tuning")
        batches = inputs.first_batches(subject.model, subject.renderer.pad_id, self.log)
        model = attach_adapter(subject.model, plan, inputs.steps, batches)
        self.draft.census = take_census(model)
        check_census(self.draft.census, plan, expected_counts(plan))
        return model

    def job(self, subject: Subject, inputs: TrainingInputs) -> TrainJob:
        """The training of the subject's model."""
        from harness.train.job import TrainJob

        return TrainJob(
            model=subject.model,
            rows=inputs.rows.rows,
            order=inputs.divided,
            plan=inputs.settled(self.log),
            pad_id=subject.renderer.pad_id,
            checkpoint=self.folder.checkpoint,
            truncated_tokens=inputs.rows.truncated_tokens,
            checkpoint_seconds=self.options.checkpoint_seconds,
            ranks=self._ranks,
            validate=self.validator(subject),
        )

    def validator(self, subject: Subject) -> Validator | None:
        """What validates the training, where the plan asks for it; it sees no held-out data."""
        from harness.score.validation import ValidationLoss

        if not self.plan.validation.every:
            return None
        corpus = replace(subject.corpus, held_out=(), pairs=())
        loss = ValidationLoss.of(replace(subject, corpus=corpus))
        return Validator(loss, self.meter, self.log)

    def save(self, model: Any) -> None:
        """Leave the adapter in the run's folder."""
        if self.plan.method != "adapter":
            return
        from harness.runs.saving import save_whole

        self.log.note("saving the adapter")
        self.draft.adapter_sha256, self.draft.adapter_bytes = save_whole(
            model, self.folder, interpolated=self.plan.interpolation > 1
        )
