"""Loop: the harness's own training loop, which the fast and the recorded path share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.records.events import Progress
from harness.records.record import TrainResult
from harness.train.checkpoint import (
    CheckpointWriter,
    TrainingState,
    restore_weights,
    saved_state,
    trainable_weights,
)
from harness.train.feed import Feed
from harness.train.job import TrainJob
from harness.train.joined import JoinedGradients
from harness.train.ledger import Ledger
from harness.train.micro_step import MicroStep
from harness.train.optimizer import make_optimizer, make_rate_schedule
from harness.train.random_state import random_state, restore_random_state
from harness.train.shared import check_alike, seed_update
from harness.train.validations import Validations


@dataclass
class Loop:
    """The state of one training."""

    job: TrainJob
    micro_step: MicroStep
    ledger: Ledger
    progress: Progress
    optimizer: Any
    rates: Any
    scaler: torch.amp.GradScaler
    trainable: list[torch.nn.Parameter]
    total: Tensor
    validations: Validations
    feed: Feed
    joined: JoinedGradients | None = None
    overlaps: bool = False

    @classmethod
    def start(cls, job: TrainJob, micro_step: MicroStep, progress: Progress) -> Loop:
        """Set up, from the checkpoint if there is one."""
        saved = saved_state(job, progress)
        tokens = job.step_tokens(padding=micro_step.pads)
        optimizer = make_optimizer(job.model, job.plan)
        trainable = [p for p in job.model.parameters() if p.requires_grad]
        ledger = Ledger(tokens, progress, saved.points if saved else ())
        total = torch.zeros((), device=trainable[0].device)
        loop = cls(
            job=job,
            micro_step=micro_step,
            ledger=ledger,
            progress=progress,
            optimizer=optimizer,
            rates=make_rate_schedule(optimizer, job.plan, job.steps),
            scaler=torch.amp.GradScaler("cuda", enabled=job.plan.precision.compute == "float16"),
            trainable=trainable,
            total=total,
            joined=JoinedGradients(micro_step.join_gradients(), job.ranks)
            if job.ranks.count > 1
            else None,
            validations=Validations(job, ledger, saved),
            feed=Feed(job, micro_step, progress, total),
        )
        if saved is not None:
            loop._restore(saved)
        check_alike(job.model, job.ranks, loop.ledger.done, when="before training")
        return loop

    def run(self) -> TrainResult:
        """All steps that are left."""
        compile_seconds = self._warm_up() if self.total.is_cuda else None
        # A graph says nothing until it has ended, and all devices have to say alike.
        self.overlaps = not any(self.job.ranks.gather(bool(self.feed.recorded)))
        seconds, progress = self.job.checkpoint_seconds, self.progress
        folder = self.job.checkpoint if self.job.ranks.index == 0 else None
        writer = CheckpointWriter(folder, seconds, progress)
        self.micro_step.refresh()
        self.validations.take()
        self.ledger.start_step()
        while not self.validations.over:
            self._step(self.ledger.done)
            self.validations.take()
            if writer.due(finished=self.validations.over):
                writer.write(self._state())
                self.ledger.start_step()
        for parameter in self.trainable:
            parameter.grad = None
        check_alike(self.job.model, self.job.ranks, self.ledger.done, when="after training")
        validation = self.validations.finish()
        result = self.ledger.result(
            self.micro_step.name, self.job.truncated_tokens, compile_seconds, self.job.plan
        )
        return result.model_copy(update={"validation": validation})

    def _warm_up(self) -> float:
        """Compile and record, on gradients that are thrown away. Returns seconds."""
        seconds = self.feed.warm_up(self.ledger.done)
        self.optimizer.zero_grad(set_to_none=False)
        return seconds

    def _step(self, step: int) -> None:
        """One optimizer step; the host waits for the device once, at its end."""
        rate = float(self.optimizer.param_groups[0]["lr"])
        count = self.job.step_assistant_tokens(step)
        self._gradients(step, count)
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
        self.micro_step.refresh()
        self.feed.prepare(step + 1)
        loss, size = torch.stack((self.total / count, norm)).tolist()
        self.ledger.finish_step(loss, rate, size)

    def _gradients(self, step: int, count: int) -> None:
        """Gradients of the mean loss over ``count`` tokens; the summed loss into ``total``."""
        scale = torch.full_like(self.total, 1.0 / count)
        if self.scaler.is_enabled():
            scale = self.scaler.scale(scale)
        if self.joined is None:
            self.feed.accumulate(step, scale)
            return
        self.feed.accumulate(step, scale, self.joined.complete_from if self.overlaps else None)
        self.joined.finish(self.total)

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
            **self.validations.state(),
        )
