"""The plain path: TRL's SFTTrainer over the scheduled rows; the reference for the fast one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PrinterCallback, TrainerCallback
from trl import SFTTrainer

from harness.corpus.sequences import IGNORED
from harness.records.events import Progress
from harness.records.record import TrainResult
from harness.train.allocation import Allocation, allocation_of
from harness.train.checkpoint import (
    CheckpointWriter,
    TrainingState,
    restore_weights,
    saved_state,
    trainable_weights,
)
from harness.train.collate import collate
from harness.train.job import TrainJob
from harness.train.ledger import Ledger
from harness.train.optimizer import make_optimizer, make_rate_schedule
from harness.train.random_state import random_state, restore_random_state
from harness.train.sft.arguments import no_tokenizer, sft_arguments
from harness.train.sft.as_found import AsFound, left_as_found
from harness.train.sft.logits import OwnLogits
from harness.train.sft.loss import summed_loss
from harness.train.sft.offload import keep_inputs_on_host
from harness.train.shared import check_alike, seed_step, seed_update
from harness.train.shares import Shares
from harness.train.validations import Validations


def train(job: TrainJob, progress: Progress) -> TrainResult:
    """Train ``job`` with TRL's SFTTrainer (see :func:`harness.train.path.train`)."""
    shares = Shares(job.model, job.ranks)
    saved = saved_state(job, progress)
    if saved is not None and shares.spread:
        saved = shares.own_state(saved)
    ledger = Ledger(job.step_tokens(padding=True), progress, saved.points if saved else ())
    allocation = allocation_of(job.model, job.plan)
    validations = Validations(job, ledger, saved, allocation)
    check_alike(job.model, job.ranks, ledger.done, when="before training")
    if not validations.over:
        with tempfile.TemporaryDirectory() as unused, left_as_found(job.model) as found:
            account = _Account(ledger, validations, found, allocation, shares)
            _make_trainer(job, account, saved, unused, progress).train()
    elif saved is not None:
        restore_weights(job.model, saved.weights)
        restore_random_state(saved.random)
        if allocation is not None:
            allocation.restore(saved.allocation)
    check_alike(job.model, job.ranks, ledger.done, when="after training")
    validation = validations.finish()
    result = ledger.result("plain", job.truncated_tokens, plan=job.plan)
    return result.model_copy(update={"validation": validation})


@dataclass(frozen=True)
class _Account:
    """What keeps account of a training, and the model as it was before SFTTrainer took it."""

    ledger: Ledger
    validations: Validations
    found: AsFound
    allocation: Allocation | None
    shares: Shares

    def validate(self) -> None:
        """Validate if it is time to, by the model's own forward pass."""
        with self.found.for_a_while():
            self.validations.take()


def _make_trainer(
    job: TrainJob, account: _Account, saved: TrainingState | None, folder: str, progress: Progress
) -> _PlainTrainer:
    ledger = account.ledger
    optimizer = make_optimizer(job.model, job.plan, account.shares.parameters)
    rates = make_rate_schedule(optimizer, job.plan, job.steps)
    steps = range(ledger.done, job.steps)
    left = [index for step in steps for index in job.rank_order(step)]
    stored = {name: weight.data for name, weight in _trainable(job).items()}
    with _adapted_head_unseen(job.model):
        trainer = _PlainTrainer(
            model=job.model,
            args=sft_arguments(job.plan, job.steps - ledger.done, folder),
            data_collator=_Collator(job),
            train_dataset=Dataset.from_dict({"input_ids": [[index] for index in left]}),
            processing_class=no_tokenizer(job.pad_id),
            optimizers=(optimizer, rates),
        )
    # SFTTrainer casts the adapters of a quantized base to bfloat16; the plan decides instead
    for name, weight in _trainable(job).items():
        weight.data = stored[name]
    trainer.job = job
    trainer.ledger = ledger
    trainer.logits = OwnLogits(job.model)
    trainer.allocation = account.allocation
    trainer.shares = account.shares
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Bookkeeper(job, trainer, account, saved, progress))
    return trainer


@contextmanager
def _adapted_head_unseen(model: Any) -> Iterator[None]:
    """Let SFTTrainer find the output layer under its adapter.

    It refuses adapters there, since its own loss would pass them by; this trainer's does not.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, BaseTunerLayer):
        yield
        return
    model.get_output_embeddings = head.get_base_layer
    try:
        yield
    finally:
        del model.get_output_embeddings


def _trainable(job: TrainJob) -> dict[str, torch.nn.Parameter]:
    return {name: item for name, item in job.model.named_parameters() if item.requires_grad}


class _Collator:
    """Row numbers to tensors."""

    def __init__(self, job: TrainJob) -> None:
        self._job = job

    def __call__(self, items: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        rows = [self._job.rows[item["input_ids"][0]] for item in items]
        return collate(rows, self._job.pad_id)


class _PlainTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose loss reads only labelled positions and is kept per step."""

    job: TrainJob
    ledger: Ledger
    logits: OwnLogits
    shares: Shares
    allocation: Allocation | None = None
    step_loss: torch.Tensor | None = None
    step_norm: float | None = None

    def compute_loss(
        self,
        model: Any,  # noqa: ARG002 - asked through its own forward pass
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - the signature is Trainer's
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """Summed loss over the labelled tokens of the whole effective batch."""
        labels = inputs.pop("labels")
        with self.shares.let_go_of_casts():
            summed = summed_loss(self.logits.hidden(**inputs), self.logits, labels)
        count = num_items_in_batch if num_items_in_batch is not None else (labels != IGNORED).sum()
        if self.job.ranks.count > 1:  # Trainer has counted this rank's share alone
            count = self.job.step_assistant_tokens(self.ledger.done)
        count = torch.as_tensor(count).clamp(min=1)
        loss = summed / count
        kept = loss.detach()
        self.step_loss = kept if self.step_loss is None else self.step_loss + kept
        if self.allocation is not None:  # once a step, however many micro-batches it has
            loss = loss + self.allocation.penalty() * (labels[:, 1:] != IGNORED).sum() / count
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Say nothing: the ledger reports."""

    def _clip_grad_norm(self, model: Any) -> Any:
        self._add_up()
        if self.shares.spread:
            norm = self.shares.clip(self.job.plan.training.max_grad_norm)
        else:
            norm = super()._clip_grad_norm(model)
        self.step_norm = float(norm) if norm is not None else None
        return norm

    def _add_up(self) -> None:
        """The gradients and the loss of all ranks, before the norm is taken."""
        ranks, loss = self.job.ranks, self.step_loss
        if ranks.count == 1 or loss is None:
            return
        self.step_loss = loss = loss.clone()
        self.shares.add_up(loss)
        seed_update(self.job.plan.seed, self.ledger.done, ranks)


class _Bookkeeper(TrainerCallback):  # type: ignore[misc]
    """Feeds the ledger, stops at losses that are not finite, writes checkpoints."""

    def __init__(
        self,
        job: TrainJob,
        trainer: _PlainTrainer,
        account: _Account,
        saved: TrainingState | None,
        progress: Progress,
    ) -> None:
        self._job = job
        self._trainer = trainer
        self._account = account
        self._ledger = account.ledger
        self._saved = saved
        self._rate = 0.0
        folder = job.checkpoint if job.ranks.index == 0 else None
        self._writer = CheckpointWriter(folder, job.checkpoint_seconds, progress)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Layers are checkpointed from here on."""
        if self._job.plan.training.activation_offload:
            keep_inputs_on_host(self._job.model)

    def on_step_begin(self, *_: Any, **kwargs: Any) -> None:
        """Restore a saved state before the first step; note the learning rate."""
        if self._saved is not None:
            self._restore(self._saved)
            self._saved = None
        if self._trainer.state.global_step == 0:
            self._account.validate()
            self._ledger.start_step()
        seed_step(self._job.plan.seed, self._ledger.done, self._job.ranks)
        self._rate = float(kwargs["optimizer"].param_groups[0]["lr"])

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Refuse a loss that is not finite before it reaches the weights."""
        if self._trainer.step_loss is not None:
            self._ledger.check(float(self._trainer.step_loss))

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Move ranks about, where the adapter asks for it."""
        if self._trainer.allocation is not None:
            self._trainer.allocation.after_step(self._ledger.done)

    def on_step_end(
        self,
        args: Any,  # noqa: ARG002 - the signature is TrainerCallback's
        state: Any,  # noqa: ARG002
        control: Any,
        **_: Any,
    ) -> None:
        """Enter the step; validate and write a checkpoint when they are due."""
        loss = self._trainer.step_loss
        self._trainer.step_loss = None
        self._account.shares.let_go()
        self._ledger.finish_step(
            float(loss) if loss is not None else 0.0, self._rate, self._trainer.step_norm
        )
        self._account.validate()
        over = self._account.validations.over
        if self._due(finished=over):
            self._write()
            self._ledger.start_step()
        control.should_training_stop = control.should_training_stop or over

    def _due(self, *, finished: bool) -> bool:
        """Whether to write a checkpoint, to which all give their part of spread weights."""
        due = self._writer.due(finished=finished)
        return bool(self._job.ranks.hand_out(due)) if self._account.shares.spread else due

    def _write(self) -> None:
        state = self._state()
        if self._account.shares.spread:
            state = self._account.shares.whole_state(state)
        self._writer.write(state)
        if self._account.shares.spread:
            self._job.ranks.hand_out(None)  # the others wait here, however long the disk takes

    def _restore(self, saved: TrainingState) -> None:
        restore_weights(self._job.model, saved.weights)
        self._trainer.optimizer.load_state_dict(saved.optimizer)
        self._trainer.lr_scheduler.load_state_dict(saved.rates)
        scaler = self._trainer.accelerator.scaler
        if scaler is not None and saved.scaler is not None:
            scaler.load_state_dict(saved.scaler)
        restore_random_state(saved.random)
        if self._trainer.allocation is not None:
            self._trainer.allocation.restore(saved.allocation)

    def _state(self) -> TrainingState:
        scaler = self._trainer.accelerator.scaler
        allocation = self._trainer.allocation
        return TrainingState(
            fingerprint=self._job.plan.fingerprint,
            points=tuple(self._ledger.points),
            weights=trainable_weights(self._job.model),
            optimizer=self._trainer.optimizer.state_dict(),
            rates=self._trainer.lr_scheduler.state_dict(),
            scaler=None if scaler is None else scaler.state_dict(),
            random=random_state(),
            allocation={} if allocation is None else allocation.state(),
            **self._account.validations.state(),
        )
