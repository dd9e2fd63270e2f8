"""The fast path: the harness's own loop over unpadded streams of conversations."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.errors import RunError
from harness.records.events import Progress
from harness.records.record import TrainResult
from harness.train.checkpoint import (
    CheckpointWriter,
    TrainingState,
    restore_weights,
    saved_state,
    trainable_weights,
)
from harness.train.job import TrainJob
from harness.train.ledger import Ledger
from harness.train.optimizer import make_optimizer, make_rate_schedule
from harness.train.random_state import random_state, restore_random_state
from harness.train.shared import check_alike, seed_update
from harness.train.step import Batch, Size, Step
from harness.train.stream.decoder import Decoder
from harness.train.stream.graph import WORTHWHILE, Pace, RecordedStep, choose_shapes
from harness.train.stream.linears import UnsupportedLayer
from harness.train.watch import Watch

if TYPE_CHECKING:
    from harness.corpus.sequences import TrainingRow


def train(job: TrainJob, progress: Progress) -> TrainResult:
    """Train ``job`` without padding, autograd or full logits (see `harness.train.path.train`).

    Raises:
        RunError: the written-out layers do not know the model, its quantization or its adapter,
            which :mod:`harness.train.stream.refusal` finds when a plan is made.
    """
    training = job.plan.training
    on_gpu = job.plan.device.kind == "cuda"
    try:
        decoder = Decoder(
            job.model,
            getattr(torch, job.plan.precision.compute),
            recompute=training.gradient_checkpointing,
            offload=training.activation_offload and on_gpu,
            on_gpu=on_gpu,
        )
    except UnsupportedLayer as reason:
        raise RunError(
            f"the fast path does not take {reason}",
            where="training.speed",
            hint='use "plain"; that planning did not say so is a defect, please report it',
        ) from reason
    job.model.eval()
    return Loop.start(job, decoder, progress).run()


# A micro-batch that takes this many times its launches is not held up by them.
DEVICE_BOUND = 2.5


def _seconds(recorded: RecordedStep, batch: Batch, scale: Tensor) -> float:
    """Time of one replay."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    recorded.replay(batch, scale)
    torch.cuda.synchronize()
    return time.perf_counter() - started


@dataclass(frozen=True)
class _Prepared:
    """A micro-batch on the device, and the recording of its shape, if any."""

    batch: Batch
    recorded: RecordedStep | None


@dataclass
class Loop:
    """The state of one training."""

    job: TrainJob
    decoder: Step
    ledger: Ledger
    progress: Progress
    optimizer: Any
    rates: Any
    scaler: torch.amp.GradScaler
    trainable: list[torch.nn.Parameter]
    total: Tensor
    watch: Watch
    joined: Tensor | None = None
    shapes: dict[int, list[Size | None]] = field(default_factory=dict)
    recorded: dict[Size, RecordedStep] = field(default_factory=dict)
    ready: dict[int, list[_Prepared]] = field(default_factory=dict)

    @classmethod
    def start(cls, job: TrainJob, decoder: Step, progress: Progress) -> Loop:
        """Set up, from the checkpoint if there is one."""
        saved = saved_state(job, progress)
        tokens = job.step_tokens(padding=decoder.pads)
        optimizer = make_optimizer(job.model, job.plan)
        trainable = [p for p in job.model.parameters() if p.requires_grad]
        ledger = Ledger(tokens, progress, saved.points if saved else ())
        loop = cls(
            job=job,
            decoder=decoder,
            ledger=ledger,
            progress=progress,
            optimizer=optimizer,
            rates=make_rate_schedule(optimizer, job.plan, job.steps),
            scaler=torch.amp.GradScaler("cuda", enabled=job.plan.precision.compute == "float16"),
            trainable=trainable,
            total=torch.zeros((), device=trainable[0].device),
            joined=decoder.join_gradients() if job.ranks.count > 1 else None,
            watch=Watch(job, ledger, saved),
        )
        if saved is not None:
            loop._restore(saved)
        check_alike(job.model, job.ranks, loop.ledger.done, when="before training")
        return loop

    def run(self) -> TrainResult:
        """All steps that are left."""
        compile_seconds = self._warm_up() if self.total.is_cuda else None
        seconds, progress = self.job.checkpoint_seconds, self.progress
        folder = self.job.checkpoint if self.job.ranks.index == 0 else None
        writer = CheckpointWriter(folder, seconds, progress)
        self.decoder.refresh()
        self.watch.take()
        self.ledger.start_step()
        while not self.watch.over:
            self._step(self.ledger.done)
            self.watch.take()
            if writer.due(finished=self.watch.over):
                writer.write(self._state())
                self.ledger.start_step()
        for parameter in self.trainable:
            parameter.grad = None
        check_alike(self.job.model, self.job.ranks, self.ledger.done, when="after training")
        validation = self.watch.finish()
        result = self.ledger.result(
            self.decoder.name, self.job.truncated_tokens, compile_seconds, self.job.plan
        )
        return result.model_copy(update={"validation": validation})

    def _warm_up(self) -> float:
        """Compile the kernels and record micro-batches where that pays. Returns seconds.

        The gradients made on the way are thrown away.
        """
        started = time.perf_counter()
        self.decoder.refresh()
        remaining = range(self.ledger.done, self.job.steps)
        micros = {step: self.job.micro_batches(step) for step in remaining}
        everything = [rows for step in remaining for rows in micros[step]]
        if everything:
            self.decoder.reserve(max(self.decoder.size_of(rows).tokens for rows in everything))
            self._launch(everything[0][:1])
        if len(everything) >= WORTHWHILE:
            try:
                shapes = self._recorded_shapes(everything)
            except self.decoder.unrecordable as error:
                self.progress.note(f"steps are not recorded as CUDA graphs: {error}")
                shapes = [None] * len(everything)
            rest = iter(shapes)
            self.shapes = {step: [next(rest) for _ in micros[step]] for step in remaining}
        self.optimizer.zero_grad(set_to_none=False)
        self.total.zero_()
        torch.cuda.synchronize()
        return time.perf_counter() - started

    def _recorded_shapes(self, micro_batches: list[list[TrainingRow]]) -> list[Size | None]:
        """The shape of each micro-batch, every one of them recorded."""
        sizes = [self.decoder.size_of(rows) for rows in micro_batches]
        shapes = choose_shapes(sizes, self._pace(micro_batches))
        self._record(micro_batches, shapes)
        return shapes

    def _launch(self, rows: list[TrainingRow]) -> tuple[float, float]:
        """Run one micro-batch. Returns seconds until all was launched and until all was done."""
        batch = self._on_device(self.decoder.batch(rows))
        torch.cuda.synchronize()
        started = time.perf_counter()
        self.decoder.accumulate(batch, self.decoder.stream(batch), torch.ones_like(self.total))
        launched = time.perf_counter() - started
        torch.cuda.synchronize()
        return launched, time.perf_counter() - started

    def _pace(self, micro_batches: list[list[TrainingRow]]) -> Pace:
        """Measured: launches on the shortest row, where the device has little to do.

        A token's time is read off the largest micro-batch, recorded unless the device is plainly
        what takes the time: where launches do, they would hide how little a token costs.
        """
        shortest = min(micro_batches[0], key=lambda row: len(row.input_ids))
        launch = min(self._launch([shortest])[0] for _ in range(2))
        largest = max(micro_batches, key=lambda rows: self.decoder.size_of(rows).tokens)
        done = min(self._launch(largest)[1] for _ in range(2))
        if done < DEVICE_BOUND * launch:
            batch = self._on_device(self.decoder.batch(largest))
            torch.cuda.empty_cache()
            recorded = RecordedStep(self.decoder, batch, self.total, None)
            done = min(_seconds(recorded, batch, self.total) for _ in range(2))
        return Pace(launch, done / self.decoder.size_of(largest).tokens)

    def _record(self, micro_batches: list[list[TrainingRow]], shapes: list[Size | None]) -> None:
        """A recording for every shape, with one of its micro-batches as the example."""
        examples = {shape: rows for shape, rows in zip(shapes, micro_batches, strict=True) if shape}
        self.decoder.reserve(max((shape.tokens for shape in examples), default=0))
        torch.cuda.empty_cache()
        last: RecordedStep | None = None
        for shape in sorted(examples, key=lambda one: -one.tokens):
            example = self.decoder.batch(examples[shape], shape, self.job.pad_id)
            last = RecordedStep(self.decoder, self._on_device(example), self.total, last)
            self.recorded[shape] = last

    def _step(self, step: int) -> None:
        """One optimizer step; the host waits for the device once, at its end."""
        rate = float(self.optimizer.param_groups[0]["lr"])
        count = self.job.step_assistant_tokens(step)
        self._gradients(self._batches(step), count)
        seed_update(self.job.plan.seed, step, self.job.ranks)
        self.scaler.unscale_(self.optimizer)
        limit = self.job.plan.training.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(self.trainable, limit)
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= before:
            self.rates.step()
        self.optimizer.zero_grad(set_to_none=False)
        self.decoder.refresh()
        self.ready = {step + 1: self._batches(step + 1)} if step + 1 < self.job.steps else {}
        loss, size = torch.stack((self.total / count, norm)).tolist()
        self.ledger.finish_step(loss, rate, size)

    def _gradients(self, batches: list[_Prepared], count: int) -> None:
        """Gradients of the mean loss over ``count`` tokens; the summed loss into ``total``."""
        self.total.zero_()
        scale = torch.full_like(self.total, 1.0 / count)
        if self.scaler.is_enabled():
            scale = self.scaler.scale(scale)
        for one in batches:
            if one.recorded is not None:
                one.recorded.replay(one.batch, scale)
            else:
                stream = self.decoder.stream(one.batch)
                self.total += self.decoder.accumulate(one.batch, stream, scale)
        if self.joined is not None:
            self.job.ranks.add_up([self.joined, self.total])

    def _batches(self, step: int) -> list[_Prepared]:
        """The micro-batches of a step, on the device (prepared ahead if possible)."""
        if step in self.ready:
            return self.ready.pop(step)
        micros = self.job.micro_batches(step)
        return [
            _Prepared(
                self._on_device(self.decoder.batch(rows, shape, self.job.pad_id)),
                self.recorded[shape] if shape else None,
            )
            for rows, shape in zip(micros, self.shapes.get(step, [None] * len(micros)), strict=True)
        ]

    def _on_device(self, batch: Any) -> Any:
        if not self.total.is_cuda:
            return batch
        moved = {
            name: tensor.pin_memory().to(self.total.device, non_blocking=True)
            for name, tensor in batch.tensors.items()
        }
        return replace(batch, **moved)

    def _restore(self, saved: TrainingState) -> None:
        restore_weights(self.job.model, saved.weights)
        self.optimizer.load_state_dict(saved.optimizer)
        self.rates.load_state_dict(saved.rates)
        if saved.scaler is not None:
            self.scaler.load_state_dict(saved.scaler)
        restore_random_state(saved.random)

    def _state(self) -> TrainingState:
        return TrainingState(
            fingerprint=self.job.plan.fingerprint,
            points=tuple(self.ledger.points),
            weights=trainable_weights(self.job.model),
            optimizer=self.optimizer.state_dict(),
            rates=self.rates.state_dict(),
            scaler=self.scaler.state_dict() if self.scaler.is_enabled() else None,
            random=random_state(),
            **self.watch.state(),
        )
