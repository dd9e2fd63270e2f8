"""Run: carry out one plan, phase after phase, in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import DivergedError, HarnessError
from harness.events import EventLog
from harness.plan import Plan
from harness.record import (
    Census,
    CorpusResult,
    Environment,
    Generation,
    MemoryPrediction,
    PhaseName,
    Problem,
    RunRecord,
    Score,
    Status,
    TrainResult,
)
from harness.schema import read_json, write_json
from harness.store import RunFolder

if TYPE_CHECKING:
    from harness.corpus.build import Corpus
    from harness.corpus.render import Renderer
    from harness.corpus.sequences import Rows
    from harness.measure.meter import Meter


@dataclass
class Outcome:
    """What the phases have produced so far; the record is made from it however the run ends."""

    environment: Environment | None = None
    prediction: MemoryPrediction | None = None
    census: Census | None = None
    corpus: CorpusResult | None = None
    training: TrainResult | None = None
    scores: list[Score] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)
    adapter_bytes: int | None = None


class Run:
    """One plan on its way through the phases."""

    def __init__(self, plan: Plan, folder: RunFolder, log: EventLog) -> None:
        """Take the plan, the folder to leave results in and the log to speak into."""
        self.plan = plan
        self.folder = folder
        self.log = log
        self.outcome = Outcome()
        self.phase: PhaseName | None = None
        self._meter: Meter | None = None

    @property
    def meter(self) -> Meter:
        """The meter of this run."""
        if self._meter is None:
            from harness.measure.meter import Meter

            self._meter = Meter(self.plan.device)
        return self._meter

    @contextmanager
    def _in_phase(self, name: PhaseName) -> Iterator[None]:
        self.phase = name
        self.log.emit("phase_start", phase=name)
        with self.meter.phase(name):
            yield
        cost = self.meter.costs[-1]
        self.log.emit("phase_end", phase=name, cost=cost.model_dump(mode="json"))

    def execute(self) -> None:
        """Carry out the plan; ``outcome`` holds the results."""
        self.log.note("loading libraries")
        _set_up_torch(self.plan)
        from harness.measure.environment import take_environment
        from harness.model.fetch import fetch, quiet_libraries

        quiet_libraries()
        self.outcome.environment = take_environment(self.plan.device)
        with self._in_phase("fetch"):
            source = fetch(self.plan.model, self.log)
        with self._in_phase("prepare"):
            corpus, renderer, rows = self._prepare(source)
        with self._in_phase("load"):
            model = self._load(source)
        if self.plan.trains:
            with self._in_phase("score_base"):
                self._score_base(model, corpus, renderer)
            with self._in_phase("train"):
                model = self._train(model, rows, renderer)
        with self._in_phase("score"):
            self._score(model, corpus, renderer)
        with self._in_phase("save"):
            self._save(model)

    def _prepare(self, source: Path) -> tuple[Corpus, Renderer, Rows | None]:
        from harness.corpus.cache import tokenised_corpus
        from harness.corpus.lengths import with_rows
        from harness.corpus.render import Renderer
        from harness.corpus.sequences import make_rows
        from harness.model.load import load_tokenizer

        self.log.note("reading the corpus")
        renderer = Renderer(load_tokenizer(source), self.plan.model.chat_template)
        found = tokenised_corpus(self.plan.corpus, renderer, self.log)
        training = self.plan.training
        rows = make_rows(found.train, training, renderer.pad_id)
        self.outcome.corpus = with_rows(found.corpus.result, rows, training.overflow)
        return found.corpus, renderer, rows if self.plan.trains else None

    def _load(self, source: Path) -> Any:
        from harness.measure.memory import predict
        from harness.model.census import check_census, take_census
        from harness.model.load import load_base

        self.log.note(f"loading {self.plan.model.name}")
        self.outcome.prediction = predict(self.plan)
        model = load_base(self.plan, source)
        self.outcome.census = take_census(model)
        if not self.plan.trains:
            check_census(self.outcome.census, self.plan)
        return model

    def _score_base(self, model: Any, corpus: Corpus, renderer: Renderer) -> None:
        from harness.score.take import take_scores

        subject = self._subject(model, corpus, renderer)
        found = take_scores(subject, "before", self.folder.path, self.log)
        self.outcome.scores += found.scores
        self.outcome.generations += found.generations

    def _subject(self, model: Any, corpus: Corpus, renderer: Renderer) -> Any:
        from harness.score.take import Subject

        return Subject(
            model=model,
            tokenizer=renderer.tokenizer,
            renderer=renderer,
            corpus=corpus,
            plan=self.plan,
        )

    def _train(self, model: Any, rows: Rows | None, renderer: Renderer) -> Any:
        from harness.model.adapter import attach_adapter
        from harness.model.census import check_census, take_census
        from harness.model.shape import count_parameters
        from harness.train.schedule import schedule
        from harness.train.train import TrainJob, train

        assert rows is not None  # noqa: S101 - a plan that trains was given rows
        plan = self.plan
        self.log.note("attaching the adapter" if plan.adapter else "preparing full fine-tuning")
        model = attach_adapter(model, plan)
        self.outcome.census = take_census(model)
        planned = count_parameters(plan.model, plan.method, plan.adapter).trainable
        check_census(self.outcome.census, plan, planned)
        lengths = [len(row.input_ids) for row in rows.rows]
        job = TrainJob(
            model=model,
            rows=rows.rows,
            order=schedule(len(rows.rows), plan.budget, plan.seed, lengths),
            plan=plan,
            pad_id=renderer.pad_id,
            checkpoint=self.folder.checkpoint,
            truncated_tokens=rows.truncated_tokens,
        )
        self.outcome.training = train(job, self.log)
        # The training library must have left dtypes alone.
        check_census(take_census(model), plan, planned)
        return model.eval()

    def _score(self, model: Any, corpus: Corpus, renderer: Renderer) -> None:
        from harness.score.take import take_scores

        subject = self._subject(model, corpus, renderer)
        found = take_scores(subject, "after", self.folder.path, self.log)
        self.outcome.scores += found.scores
        self.outcome.generations += found.generations

    def _save(self, model: Any) -> None:
        if self.plan.method != "adapter":
            return
        self.log.note("saving the adapter")
        scratch = self.folder.path / ".adapter.part"
        shutil.rmtree(scratch, ignore_errors=True)
        model.save_pretrained(scratch, safe_serialization=True)
        shutil.rmtree(self.folder.adapter, ignore_errors=True)
        scratch.replace(self.folder.adapter)
        weights = self.folder.adapter.glob("*.safetensors")
        self.outcome.adapter_bytes = sum(path.stat().st_size for path in weights)


def _set_up_torch(plan: Plan) -> None:
    """Fix everything that would make two runs of one plan differ."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    from transformers import set_seed

    if plan.device.threads:
        torch.set_num_threads(plan.device.threads)
    set_seed(plan.seed)


def run_child(path: Path) -> int:
    """Carry out the plan in ``path`` and leave a record there, whatever happens.

    Returns the exit code: 0 for a finished run, 1 for any other record, 130 when interrupted.
    """
    folder = RunFolder(path)
    plan = read_json(folder.plan, Plan)
    started, clock = datetime.now(UTC), time.monotonic()
    with EventLog(folder.events) as log:
        run = Run(plan, folder, log)
        status, problem = _guarded(run)
        record = RunRecord(
            plan=plan,
            fingerprint=plan.fingerprint,
            status=status,
            started_at=started.isoformat(timespec="seconds"),
            seconds=time.monotonic() - clock,
            phases=run.meter.costs,
            problem=problem,
            **_fields(run.outcome),
        )
        write_json(folder.record, record)
        if status == "ok":
            shutil.rmtree(folder.checkpoint, ignore_errors=True)
        log.emit("end", status=status)
    return {"ok": 0, "interrupted": 130}.get(status, 1)


def _fields(outcome: Outcome) -> dict[str, Any]:
    fields: dict[str, Any] = dict(vars(outcome))
    fields["scores"] = tuple(outcome.scores)
    fields["generations"] = tuple(outcome.generations)
    return fields


def _guarded(run: Run) -> tuple[Status, Problem | None]:
    """Execute, and turn however it ends into a status. The one place that catches everything."""
    try:
        run.execute()
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - becomes a record here
        status, kind, message = _classify(error)
        if kind == "crash":
            traceback.print_exc()
        return status, Problem(kind=kind, phase=run.phase, step=None, message=message)
    return "ok", None


def _classify(error: BaseException) -> tuple[Status, str, str]:
    """Status, kind and message of an error that ended a run."""
    name = type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "interrupted", "interrupted by the user"
    if isinstance(error, DivergedError):
        return "diverged", "diverged", str(error)
    if isinstance(error, HarnessError):
        return "failed", name, str(error)
    if isinstance(error, MemoryError):
        return "oom", "host_oom", "the machine's memory is exhausted"
    if name == "OutOfMemoryError":  # torch's; not imported, since torch may not be
        return "oom", "cuda_oom", str(error).splitlines()[0]
    return "failed", "crash", f"{name}: {error}"


def _end_with_parent() -> None:
    """Leave at once when the parent is gone: it holds the other end of standard input."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True, name="parent-watch").start()


if __name__ == "__main__":
    _end_with_parent()
    sys.exit(run_child(Path(sys.argv[1])))
