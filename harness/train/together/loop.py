"""Loop: optimizer steps of several plans at once, each with a schedule and account of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.errors import DivergedError, RunError
from harness.records.events import Progress
from harness.records.record import TrainResult
from harness.train.checkpoint import CheckpointWriter, TrainingState, load_state, restore_weights
from harness.train.feed import Feed
from harness.train.job import TrainJob
from harness.train.ledger import Ledger
from harness.train.optimizer import make_optimizer, make_rate_schedule
from harness.train.random_state import random_state
from harness.train.stream.footprint import layers_kept
from harness.train.stream.linears import UnsupportedLayer
from harness.train.together.bank import AdapterRow
from harness.train.together.decoder import Abreast, TogetherDecoder
from harness.train.together.start import AdapterStart

if TYPE_CHECKING:
    from harness.records.record import LossPoint


@dataclass(frozen=True)
class Member:
    """One of the plans that train together.

    ``job.model`` is the same model for all, with the adapter of any of them; ``start`` is what the
    plan's own adapter begins with.
    """

    job: TrainJob
    start: AdapterStart
    progress: Progress


@dataclass(frozen=True)
class Outcome:
    """What has become of a member: its result and trained weights, or why it did not go on."""

    result: TrainResult | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    error: DivergedError | None = None


def train_together(members: Sequence[Member]) -> list[Outcome]:
    """Train all of ``members`` in one loop; each finds what it would find alone, up to rounding.

    All have as many steps, and plans that :func:`harness.train.together.group.groups` puts into
    one group. The seconds of a step are divided among them. A member whose loss is not finite
    leaves, and the others go on.

    Raises:
        RunError: the fast path does not take the model.
    """
    plan = members[0].job.plan
    on_gpu = plan.device.kind == "cuda"
    try:
        decoder = TogetherDecoder(
            members[0].job.model,
            getattr(torch, plan.precision.compute),
            [member.start for member in members],
            kept=layers_kept(plan.training),
            offload=plan.training.activation_offload and on_gpu,
            on_gpu=on_gpu,
        )
    except UnsupportedLayer as reason:
        raise RunError(f"plans do not train together on {reason}") from reason
    if on_gpu:
        _tell_failures(members[0])
    members[0].job.model.eval()
    return _Loop(members, decoder).run()


def _tell_failures(member: Member) -> None:
    """Say which of the faster kernels this machine does without."""
    from harness.train.stream.trial import fused_failure

    reason = fused_failure(getattr(torch, member.job.plan.precision.compute))
    if reason is not None:
        member.progress.note(f"activations and the adapters' products are computed apart: {reason}")


@dataclass(frozen=True)
class _Rows:
    """The micro-batches of all members, place by place."""

    jobs: tuple[TrainJob, ...]

    @property
    def steps(self) -> int:
        return self.jobs[0].steps

    @property
    def pad_id(self) -> int:
        return self.jobs[0].pad_id

    def micro_batches(self, step: int) -> list[list[Abreast]]:
        by_job = [job.micro_batches(step) for job in self.jobs]
        return [
            [Abreast(rows) for rows in zip(*micros, strict=True)]
            for micros in zip(*by_job, strict=True)
        ]


class _Lane:
    """One member while it trains."""

    def __init__(self, member: Member, row: AdapterRow, share: int, key: str) -> None:
        self.member = member
        self.row = row
        self.error: DivergedError | None = None
        job = member.job
        self._share = share
        self._key = f"{job.plan.fingerprint} {key}"
        self.optimizer = make_optimizer(row, job.plan)
        self.rates = make_rate_schedule(self.optimizer, job.plan, job.steps)
        self.ledger = self._ledger(())
        self.writer = CheckpointWriter(job.checkpoint, job.checkpoint_seconds, member.progress)

    def _ledger(self, points: Sequence[LossPoint]) -> Ledger:
        tokens = self.member.job.step_tokens(padding=False)
        return Ledger(tokens, self.member.progress, points, self._share)

    def saved(self) -> TrainingState | None:
        folder = self.member.job.checkpoint
        if folder is None:
            return None
        return load_state(folder, self._key, self.row, self.member.progress)

    def restore(self, state: TrainingState) -> None:
        gradient = self.row.adapters.grad
        restore_weights(self.row, state.weights)
        self.optimizer.load_state_dict(state.optimizer)
        self.rates.load_state_dict(state.rates)
        self.ledger = self._ledger(state.points)
        self.row.adapters.grad = gradient

    def state(self) -> TrainingState:
        return TrainingState(
            fingerprint=self._key,
            points=tuple(self.ledger.points),
            weights={"adapters": self.row.adapters.detach()},
            optimizer=self.optimizer.state_dict(),
            rates=self.rates.state_dict(),
            random=random_state(),
        )

    @property
    def rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def update(self) -> None:
        self.optimizer.step()
        self.rates.step()


class _Loop:
    """The state of one training of several plans."""

    def __init__(self, members: Sequence[Member], decoder: TogetherDecoder) -> None:
        self._decoder = decoder
        self._members = members
        device = decoder.bank.values.device
        self._total = torch.zeros(len(members), device=device)
        limits = [member.job.plan.training.max_grad_norm for member in members]
        self._limits = torch.tensor(limits, device=device)
        key = _key(members)
        self._lanes = [
            _Lane(member, AdapterRow(decoder.bank, row), len(members), key)
            for row, member in enumerate(members)
        ]
        rows = _Rows(tuple(member.job for member in members))
        self._feed = Feed(rows, decoder, members[0].progress, self._total)
        self._restore()

    def _restore(self) -> None:
        """Go on from the step that all have saved; where they saved different ones, begin anew."""
        states = [lane.saved() for lane in self._lanes]
        found = [state for state in states if state is not None]
        if len(found) < len(states) or len({len(state.points) for state in found}) > 1:
            if found:
                note = "not all have a checkpoint of the same step: training begins anew"
                self._members[0].progress.note(note)
            return
        for lane, state in zip(self._lanes, found, strict=True):
            lane.restore(state)

    @property
    def _training(self) -> list[_Lane]:
        return [lane for lane in self._lanes if lane.error is None]

    def run(self) -> list[Outcome]:
        """All steps that are left."""
        done, steps = self._lanes[0].ledger.done, self._feed.source.steps
        compile_seconds = self._feed.warm_up(done) if self._total.is_cuda else None
        self._decoder.bank.gradients.zero_()
        self._decoder.refresh()
        for lane in self._lanes:
            lane.ledger.start_step()
        for step in range(done, steps):
            if not self._training:
                break
            self._step(step)
            self._save(finished=step + 1 == steps)
        return [self._outcome(row, lane, compile_seconds) for row, lane in enumerate(self._lanes)]

    def _step(self, step: int) -> None:
        """One optimizer step of each; the host waits for the device once, at its end."""
        counts = [member.job.step_assistant_tokens(step) for member in self._members]
        divisors = torch.tensor(counts, dtype=self._total.dtype, device=self._total.device)
        rates = {id(lane): lane.rate for lane in self._training}
        self._feed.accumulate(step, 1.0 / divisors)
        norms = self._decoder.bank.finish_gradients(self._limits)
        for lane in self._training:
            lane.update()
        self._decoder.bank.gradients.zero_()
        self._decoder.refresh()
        self._feed.prepare(step + 1)
        losses, sizes = torch.stack((self._total / divisors, norms)).tolist()
        for lane, loss, size in zip(self._lanes, losses, sizes, strict=True):
            if lane.error is not None:
                continue
            try:
                lane.ledger.finish_step(loss, rates[id(lane)], size)
            except DivergedError as error:
                lane.error = error

    def _save(self, *, finished: bool) -> None:
        due = [lane for lane in self._training if lane.writer.due(finished=finished)]
        for lane in self._training if due else ():
            lane.writer.write(lane.state())
        if due:
            for lane in self._training:
                lane.ledger.start_step()

    def _outcome(self, row: int, lane: _Lane, compile_seconds: float | None) -> Outcome:
        if lane.error is not None:
            return Outcome(error=lane.error)
        job = lane.member.job
        if compile_seconds is not None:
            compile_seconds /= len(self._members)
        result = lane.ledger.result("fast", job.truncated_tokens, compile_seconds, job.plan)
        return Outcome(result, self._decoder.bank.take(row, lane.member.start.weights))


def _key(members: Sequence[Member]) -> str:
    """What a state belongs to beside its plan: those that it was trained with."""
    fingerprints = " ".join(member.job.plan.fingerprint for member in members)
    return "with " + hashlib.sha256(fingerprints.encode()).hexdigest()[:16]
