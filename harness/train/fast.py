"""The fast path: the harness's own loop over unpadded streams of conversations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from harness.events import Progress
from harness.record import TrainResult
from harness.train.batch import IGNORED, assistant_tokens
from harness.train.checkpoint import (
    CheckpointWriter,
    TrainingState,
    load_state,
    random_state,
    restore_random_state,
    restore_weights,
    trainable_weights,
)
from harness.train.decoder import Decoder
from harness.train.ledger import Ledger
from harness.train.linears import UnsupportedLayer
from harness.train.optimizer import make_optimizer, make_rate_schedule

if TYPE_CHECKING:
    from harness.corpus.sequences import Row
    from harness.train.train import TrainJob


def train_fast(job: TrainJob, progress: Progress) -> TrainResult:
    """Train ``job`` without padding, autograd or full logits (see `harness.train.train.train`).

    Models, quantizations and adapters that the written-out layers do not know are trained by the
    plain path, and the result says so.
    """
    training = job.plan.training
    try:
        decoder = Decoder(
            job.model,
            getattr(torch, job.plan.precision.compute),
            recompute=training.gradient_checkpointing,
            offload=training.activation_offload and job.plan.device.kind == "cuda",
        )
    except UnsupportedLayer as reason:
        from harness.train.plain import train_plain

        progress.note(f"the fast path does not take {reason}: training with the plain path")
        return train_plain(job, progress)
    job.model.eval()
    return _Loop.start(job, decoder, progress).run()


def make_stream_batch(
    rows: Sequence[Row], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...]]:
    """Token ids, labels and positions of ``rows`` end to end (tokens), and conversation lengths."""
    ids = np.concatenate([row.input_ids for row in rows]).astype(np.int64)
    labels = np.concatenate([row.labels for row in rows]).astype(np.int64)
    positions = np.concatenate([row.position_ids for row in rows]).astype(np.int64)
    labels[positions == 0] = IGNORED
    lengths = tuple(int(size) for row in rows for size in row.lengths)
    tensors = [torch.from_numpy(array) for array in (ids, labels, positions)]
    if device.type == "cuda":
        tensors = [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]
    return tensors[0], tensors[1], tensors[2], lengths


@dataclass
class _Loop:
    """The state of one training."""

    job: TrainJob
    decoder: Decoder
    ledger: Ledger
    optimizer: Any
    rates: Any
    scaler: torch.amp.GradScaler
    trainable: list[torch.nn.Parameter]
    device: torch.device

    @classmethod
    def start(cls, job: TrainJob, decoder: Decoder, progress: Progress) -> _Loop:
        """Set up, from the checkpoint if there is one."""
        saved = load_state(job.checkpoint, job.plan.fingerprint) if job.checkpoint else None
        tokens = job.step_tokens(padding=False)
        optimizer = make_optimizer(job.model, job.plan)
        trainable = [p for p in job.model.parameters() if p.requires_grad]
        loop = cls(
            job=job,
            decoder=decoder,
            ledger=Ledger(tokens, progress, saved.points if saved else ()),
            optimizer=optimizer,
            rates=make_rate_schedule(optimizer, job.plan, job.steps),
            scaler=torch.amp.GradScaler("cuda", enabled=job.plan.precision.compute == "float16"),
            trainable=trainable,
            device=trainable[0].device,
        )
        if saved is not None:
            loop._restore(saved)
        return loop

    def run(self) -> TrainResult:
        """All steps that are left."""
        compile_seconds = self._warm_up() if self.device.type == "cuda" else None
        writer = CheckpointWriter(self.job.checkpoint, self.job.checkpoint_seconds)
        self.decoder.refresh()
        self.ledger.start_step()
        while self.ledger.done < self.job.steps:
            self._step(self.job.step_rows(self.ledger.done))
            if writer.due(finished=self.ledger.done == self.job.steps):
                writer.write(self._state())
                self.ledger.start_step()
        for parameter in self.trainable:
            parameter.grad = None
        return self.ledger.result("fast", self.job.truncated_tokens, compile_seconds)

    def _warm_up(self) -> float:
        """Compile the kernels on a few tokens; the gradients are thrown away. Returns seconds."""
        started = time.perf_counter()
        self.decoder.refresh()
        row = self.job.rows[self.job.order[0]]
        ids, labels, positions, lengths = make_stream_batch([row], self.device)
        stream = self.decoder.stream(positions, lengths)
        self.decoder.accumulate(ids, labels, stream, torch.ones((), device=self.device))
        self.optimizer.zero_grad(set_to_none=False)
        torch.cuda.synchronize()
        return time.perf_counter() - started

    def _step(self, rows: list[Row]) -> None:
        """One optimizer step."""
        rate = float(self.optimizer.param_groups[0]["lr"])
        loss = self.ledger.check(self._gradients(rows))
        self.scaler.unscale_(self.optimizer)
        limit = self.job.plan.training.max_grad_norm
        norm = float(torch.nn.utils.clip_grad_norm_(self.trainable, limit))
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= before:
            self.rates.step()
        self.optimizer.zero_grad(set_to_none=False)
        self.decoder.refresh()
        self.ledger.finish_step(loss, rate, norm)

    def _gradients(self, rows: list[Row]) -> float:
        """Accumulate the gradients of a step; returns its mean loss per assistant token."""
        count = max(1, sum(assistant_tokens(row) for row in rows))
        size = self.job.plan.training.micro_batch_size
        scale = torch.full((), 1.0 / count, device=self.device)
        if self.scaler.is_enabled():
            scale = self.scaler.scale(scale)
        total = torch.zeros((), device=self.device)
        for start in range(0, len(rows), size):
            ids, labels, positions, lengths = make_stream_batch(
                rows[start : start + size], self.device
            )
            stream = self.decoder.stream(positions, lengths)
            total += self.decoder.accumulate(ids, labels, stream, scale)
        return float(total) / count

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
