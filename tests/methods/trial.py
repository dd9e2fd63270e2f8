"""Trial: one variant trained, scored, saved and loaded again, everything about it held."""

from __future__ import annotations

import copy
import gc
import math
import signal
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch

from harness.records.events import SILENCE, Progress, Silence
from harness.records.record import RunRecord
from harness.records.store import RunFolder
from harness.runs.child import run_child
from harness.runs.options import DEFAULT_OPTIONS
from harness.spec.methods import READS_ROWS, TAKES_START_OUT, initialisation
from harness.spec.model import FolderSource, Model
from harness.spec.plan import Plan
from harness.spec.storage import read_json, write_json
from harness.spec.suite import CorpusSpec
from harness.train.collate import collate, first_batches


@dataclass(frozen=True)
class Trial:
    """A run of ``plan`` that has ended well."""

    plan: Plan
    folder: RunFolder
    record: RunRecord


def carry_out(plan: Plan, folder: Path) -> Trial:
    """Run ``plan`` as a child process would, in this process.

    Raises:
        AssertionError: the run has not ended well.
    """
    run = RunFolder(folder / plan.run_name / "0")
    run.path.mkdir(parents=True)
    write_json(run.plan, plan)
    write_json(run.options, DEFAULT_OPTIONS)
    gc.freeze()  # a run collects garbage at every phase: let it not look at what stays
    handler, threads = signal.getsignal(signal.SIGINT), torch.get_num_threads()
    try:
        run_child(run.path)
    finally:
        gc.unfreeze()
        signal.signal(signal.SIGINT, handler)
        torch.set_num_threads(threads)
    record = read_json(run.record, RunRecord)
    assert record.status == "ok", record.problem
    return Trial(plan, run, record)


def base_model(plan: Plan) -> Any:
    """The base as the harness loads it: a copy of one that nothing has run or changed."""
    precision, training = plan.precision.model_dump_json(), plan.training
    decides = (
        *(plan.model.model_dump_json(), plan.quantization.model_dump_json(), precision),
        *(plan.stored, str(plan.interpolation), training.parallel, str(training.devices)),
    )
    return copy.deepcopy(_loaded(_Base(decides, plan)))


@dataclass(frozen=True)
class _Base:
    """What a plan asks of its base; equal where all that decides it is."""

    decides: tuple[str, ...]
    plan: Plan = field(compare=False)


@lru_cache(maxsize=8)
def _loaded(asked: _Base) -> Any:
    from harness.weights.load import load_base

    assert isinstance(asked.plan.model.source, FolderSource)
    return load_base(asked.plan, Path(asked.plan.model.source.path))


def loaded_again(plan: Plan, adapter: Path) -> Any:
    """A saved adapter on its base by plain PEFT."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(base_model(plan), adapter).eval()


@dataclass(frozen=True)
class Again:
    """The training of a trial made once more, with its model at hand."""

    model: Any
    losses: list[float]
    own_loss: float
    """Of the first step's rows by PEFT's own forward pass, before training."""
    last_loss: float
    """The same after training."""
    moved: set[str]
    frozen: set[str]


def train_again(plan: Plan, progress: Progress = SILENCE, **more: Any) -> Again:
    """Train as the run does, and watch which parameters move; ``more`` is the job's."""
    from harness.train.path import train

    job = begin(plan, **more)
    own = own_loss(job)
    before = {name: weight.detach().clone() for name, weight in job.model.named_parameters()}
    frozen = {name for name, weight in job.model.named_parameters() if not weight.requires_grad}
    result = train(job, progress)
    after = dict(job.model.named_parameters())
    moved = {name for name, weight in before.items() if not same(weight, after[name])}
    losses = [point.loss for point in result.losses]
    return Again(job.model.eval(), losses, own, own_loss(job), moved, frozen)


def begin(plan: Plan, **more: Any) -> Any:
    """A job whose model has its adapter and has not been trained."""
    from harness.weights.adapter import attach_adapter

    base = base_model(plan)
    alone = plan.training.model_copy(update={"devices": 1, "parallel": "none"})
    rows = make_job(plan.model_copy(update={"training": alone}), base)
    first = first_batches([rows.rows[index] for index in rows.order], rows.pad_id, base.device)
    return make_job(plan, attach_adapter(base, plan, plan.budget.steps, first), **more)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal; torchao's tensors cannot be compared as they are."""
    if hasattr(one, "dequantize") and type(one) not in (torch.Tensor, torch.nn.Parameter):
        one, other = one.dequantize(), other.dequantize()
    return torch.equal(one, other)


def start_shift(plan: Plan) -> float:
    """How far the adapter's start moves the base's logits, at most."""
    from harness.weights.adapter import attach_adapter

    ids = torch.arange(40)[None]
    with torch.no_grad():
        base = base_model(plan)
        before = base(input_ids=ids, use_cache=False).logits.clone()
        rows = make_job(plan, base)
        first = first_batches([rows.rows[index] for index in rows.order], rows.pad_id, base.device)
        with torch.enable_grad():
            model: Any = attach_adapter(base_model(plan), plan, plan.budget.steps, first).eval()
        after = model(input_ids=ids, use_cache=False).logits[:, -40:]
    return float((after - before).abs().max())


def make_job(plan: Plan, model: Any, **more: Any) -> Any:
    """The job that a run of ``plan`` would give its path."""
    from harness.corpus.sequences import make_training_rows
    from harness.train.job import TrainJob
    from harness.train.schedule import divided, schedule

    found, pad_id = _tokenised(plan.model.model_dump_json(), plan.corpus.model_dump_json())
    rows = make_training_rows(found.train, plan.training)
    order = schedule(len(rows.rows), plan.budget, plan.seed, rows.tokens_per_row)
    order = divided(order, rows.tokens_per_row, plan)
    return TrainJob(model, rows.rows, order, plan, pad_id, **more)


@cache
def _tokenised(model: str, corpus: str) -> tuple[Any, int]:
    """The corpus as a model (both as JSON) reads it, and the model's padding."""
    from harness.cache import Reuse
    from harness.corpus.render import Renderer
    from harness.corpus.tokenised import tokenised_corpus
    from harness.weights.load import load_tokenizer

    read, spec = Model.model_validate_json(model), CorpusSpec.model_validate_json(corpus)
    assert isinstance(read.source, FolderSource)
    tokenizer = load_tokenizer(Path(read.source.path))
    renderer = Renderer(tokenizer, read.chat_template, spec.chat_date)
    return tokenised_corpus(spec, renderer, Reuse(Silence(), None)), renderer.pad_id


def own_loss(job: Any) -> float:
    """Mean over the labelled tokens of the first step, by PEFT's own forward pass."""
    from harness.train.attention import trained_attention
    from harness.train.optimizer import silence_base_dropout

    silence_base_dropout(job.model)
    batch = collate(job.step_rows(0), job.pad_id)
    labels = batch.pop("labels")
    with torch.no_grad(), trained_attention(job.model, job.plan):
        logits = job.model.eval()(**batch, use_cache=False).logits[:, -labels.shape[1] :]
    chosen = labels[:, 1:].flatten()
    found = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), chosen, ignore_index=-100
    )
    return float(found)


def check_pair(plan: Plan, progress: Progress = SILENCE, **more: Any) -> Again:
    """Train in this process and hold what a working pair of method and base promises."""
    from harness.errors import Unpredicted
    from harness.weights.adapter import save_adapter
    from harness.weights.census import check_census, take_census
    from harness.weights.shape import count_plan

    again = train_again(plan, progress, **more)
    assert all(math.isfinite(loss) for loss in again.losses)
    # LLM.int8 looks for outliers in each micro-batch, so that its results depend on the batch
    exact = 1e-2 if plan.quantization.type == "int8" else 1e-5
    assert abs(again.losses[0] - again.own_loss) <= exact, "another first loss"
    assert again.moved, "nothing has moved"
    assert not again.moved & again.frozen, "a frozen parameter has moved"
    counts = None
    with suppress(Unpredicted):
        counts = count_plan(plan)
    check_census(take_census(again.model), plan, counts)
    if plan.method == "adapter":
        with tempfile.TemporaryDirectory() as scratch:
            save_adapter(again.model, Path(scratch))
            check_loaded(again.model, plan, Path(scratch))
    return again


def check_loaded(model: Any, plan: Plan, adapter: Path) -> None:
    """Plain PEFT gives the trained model's logits again, which are not the base's."""
    loaded = loaded_again(plan, adapter)
    ids = torch.arange(40)[None].repeat(2, 1)
    with torch.no_grad():
        trained = model(input_ids=ids, use_cache=False).logits[:, -40:]
        again = loaded(input_ids=ids, use_cache=False).logits[:, -40:]
        base = base_model(plan)(input_ids=ids, use_cache=False).logits
    # a start that was taken out of the base is not put back to the last bit
    moved = initialisation(plan.adapter).startswith(TAKES_START_OUT)
    torch.testing.assert_close(trained, again, rtol=0, atol=1e-3 if moved else 1e-5)
    assert (trained - base).abs().max() > 1e-6, "training has changed nothing"


def check_trial(trial: Trial) -> None:
    """The same of a whole run: its losses can be made again, its files are its model."""
    record = trial.record
    assert record.training is not None
    again = check_pair(trial.plan)
    losses = [point.loss for point in record.training.losses]
    # a decomposition of the base carries the last bit, where memory lies decides, into every weight
    started = initialisation(trial.plan.adapter).startswith((*TAKES_START_OUT, *READS_ROWS))
    assert len(again.losses) == len(losses)
    apart = max(abs(one - other) for one, other in zip(again.losses, losses, strict=True))
    assert apart <= (1e-4 if started else 0.0)
    scores = {score.stage: score.value for score in record.scores if "perplexity" in score.metric}
    assert scores["before"] != scores["after"]
    if trial.plan.method == "adapter":
        check_loaded(again.model, trial.plan, trial.folder.adapter)
