"""The fast path: the harness's own loop over unpadded streams of conversations."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.errors import RunError
from harness.records.events import Progress
from harness.records.record import TrainResult
from harness.train.batch import StreamBatch, StreamSize, assistant_tokens, make_stream_batch
from harness.train.checkpoint import (
    CheckpointWriter,
    TrainingState,
    random_state,
    restore_random_state,
    restore_weights,
    saved_state,
    trainable_weights,
)
from harness.train.job import TrainJob
from harness.train.ledger import Ledger
from harness.train.optimizer import make_optimizer, make_rate_schedule
from harness.train.stream.decoder import Decoder
from harness.train.stream.graph import RecordedStep, common_size
from harness.train.stream.linears import UnsupportedLayer


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
    return _Loop.start(job, decoder, progress).run()


@dataclass
class _Loop:
    """The state of one training."""

    job: TrainJob
    decoder: Decoder
    ledger: Ledger
    progress: Progress
    optimizer: Any
    rates: Any
    scaler: torch.amp.GradScaler
    trainable: list[torch.nn.Parameter]
    total: Tensor
    size: StreamSize | None = None
    recorded: RecordedStep | None = None
    ready: dict[int, list[StreamBatch]] = field(default_factory=dict)

    @classmethod
    def start(cls, job: TrainJob, decoder: Decoder, progress: Progress) -> _Loop:
        """Set up, from the checkpoint if there is one."""
        saved = saved_state(job, progress)
        tokens = job.step_tokens(padding=False)
        optimizer = make_optimizer(job.model, job.plan)
        trainable = [p for p in job.model.parameters() if p.requires_grad]
        loop = cls(
            job=job,
            decoder=decoder,
            ledger=Ledger(tokens, progress, saved.points if saved else ()),
            progress=progress,
            optimizer=optimizer,
            rates=make_rate_schedule(optimizer, job.plan, job.steps),
            scaler=torch.amp.GradScaler("cuda", enabled=job.plan.precision.compute == "float16"),
            trainable=trainable,
            total=torch.zeros((), device=trainable[0].device),
        )
        if saved is not None:
            loop._restore(saved)
        return loop

    def run(self) -> TrainResult:
        """All steps that are left."""
        compile_seconds = self._warm_up() if self.total.is_cuda else None
        seconds, progress = self.job.checkpoint_seconds, self.progress
        writer = CheckpointWriter(self.job.checkpoint, seconds, progress)
        self.decoder.refresh()
        self.ledger.start_step()
        while self.ledger.done < self.job.steps:
            self._step(self.ledger.done)
            if writer.due(finished=self.ledger.done == self.job.steps):
                writer.write(self._state())
                self.ledger.start_step()
        for parameter in self.trainable:
            parameter.grad = None
        return self.ledger.result("fast", self.job.truncated_tokens, compile_seconds, self.job.plan)

    def _warm_up(self) -> float:
        """Compile the kernels on one row and record the graph, if any. Returns seconds.

        The gradients made on the way are thrown away.
        """
        started = time.perf_counter()
        self.decoder.refresh()
        remaining = range(self.ledger.done, self.job.steps)
        micros = [rows for step in remaining for rows in self.job.micro_batches(step)]
        if micros:
            batch = self._on_device(make_stream_batch(micros[0][:1]))
            self.decoder.accumulate(batch, self.decoder.stream(batch), torch.ones_like(self.total))
            self.size = common_size(micros)
        if self.size is not None:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            example = self._on_device(make_stream_batch(micros[0], self.size, self.job.pad_id))
            self.recorded = RecordedStep(self.decoder, example, self.total)
        self.optimizer.zero_grad(set_to_none=False)
        self.total.zero_()
        torch.cuda.synchronize()
        return time.perf_counter() - started

    def _step(self, step: int) -> None:
        """One optimizer step; the host waits for the device once, at its end."""
        rate = float(self.optimizer.param_groups[0]["lr"])
        count = max(1, sum(assistant_tokens(row) for row in self.job.step_rows(step)))
        self._gradients(self._batches(step), count)
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

    def _gradients(self, batches: list[StreamBatch], count: int) -> None:
        """Gradients of the mean loss over ``count`` tokens; the summed loss into ``total``."""
        self.total.zero_()
        scale = torch.full_like(self.total, 1.0 / count)
        if self.scaler.is_enabled():
            scale = self.scaler.scale(scale)
        for batch in batches:
            if self.recorded is not None:
                self.recorded.replay(batch, scale)
            else:
                self.total += self.decoder.accumulate(batch, self.decoder.stream(batch), scale)

    def _batches(self, step: int) -> list[StreamBatch]:
        """The micro-batches of a step, on the device (prepared ahead if possible)."""
        if step in self.ready:
            return self.ready.pop(step)
        return [
            self._on_device(make_stream_batch(rows, self.size, self.job.pad_id))
            for rows in self.job.micro_batches(step)
        ]

    def _on_device(self, batch: StreamBatch) -> StreamBatch:
        if not self.total.is_cuda:
            return batch
        moved = {
            name: tensor.pin_memory().to(self.total.device, non_blocking=True)
            for name, tensor in batch.tensors.items()
        }
        return StreamBatch(**moved, longest=batch.longest)

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
        )
