"""The recorded path: the harness's own loop over padded rows, with the gradients of autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from harness.records.events import Progress
from harness.records.record import TrainResult
from harness.train.job import TrainJob
from harness.train.loop import Loop
from harness.train.recorded.padded import PaddedBatch, PaddedSize, make_padded_batch
from harness.train.sft.logits import OwnLogits
from harness.train.sft.loss import loss_of
from harness.weights.masks import NeedlessMasks, attention_of
from harness.weights.norms import fused_norms

if TYPE_CHECKING:
    from harness.corpus.sequences import TrainingRow
    from harness.spec.plan import Plan


def train(job: TrainJob, progress: Progress) -> TrainResult:
    """Train ``job`` (see :func:`harness.train.path.train`)."""
    with _training(job.model, recompute=bool(job.plan.training.gradient_checkpointing)):
        return Loop.start(job, AutogradStep(job.model, job.plan), progress).run()


@contextmanager
def _training(model: Any, *, recompute: bool) -> Iterator[None]:
    """The model in training mode; in evaluation mode afterwards."""
    if recompute:
        # no random numbers are drawn in a layer: the path refuses dropout
        how = {"use_reentrant": False, "preserve_rng_state": False}
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
    model.train()
    try:
        with fused_norms(model):
            yield
    finally:
        if recompute:
            model.gradient_checkpointing_disable()
        model.eval()


class AutogradStep:
    """Loss and gradients of one micro-batch: the model's own forward pass, and autograd."""

    name: ClassVar[str] = "recorded"
    pads: ClassVar[bool] = True
    # what a model does that a recording does not take: a question to the device, most of all
    unrecordable: ClassVar[tuple[type[Exception], ...]] = (RuntimeError,)

    def __init__(self, model: Any, plan: Plan) -> None:
        """Take a transformers causal model, or one that PEFT has wrapped."""
        self._trained = [one for one in model.parameters() if one.requires_grad]
        for parameter in self._trained:
            parameter.grad = torch.zeros_like(parameter)
        self._logits = OwnLogits(model)
        self._attention = attention_of(model)
        self._masks: dict[int, NeedlessMasks] = {}  # by tokens of a row
        compute, trainable = plan.precision.compute, plan.precision.trainable
        self._dtype = getattr(torch, compute)
        self._casts = compute == "float16" or (compute == "bfloat16" and trainable != compute)

    def size_of(self, rows: Sequence[TrainingRow]) -> PaddedSize:
        """What ``rows`` take."""
        return PaddedSize.of(rows)

    def batch(
        self, rows: Sequence[TrainingRow], size: PaddedSize | None = None, pad_id: int = 0
    ) -> PaddedBatch:
        """See :func:`make_padded_batch`."""
        return make_padded_batch(rows, size, pad_id)

    def join_gradients(self) -> Tensor:
        """See :class:`harness.train.micro_step.MicroStep`; trained parameters have one dtype."""
        sizes = [parameter.numel() for parameter in self._trained]
        flat: Tensor = self._trained[0].new_zeros(sum(sizes), requires_grad=False)
        for parameter, part in zip(self._trained, torch.split(flat, sizes), strict=True):
            parameter.grad = part.view_as(parameter)
        return flat

    def reserve(self, tokens: int) -> None:
        """Nothing is kept on the host."""

    def refresh(self) -> None:
        """Nothing is kept of the parameters' values."""

    def stream(self, batch: PaddedBatch) -> None:
        """A padded batch is all that the model needs."""

    def refill(self, stream: None, batch: PaddedBatch) -> None:
        """Nothing is kept beside a batch."""

    def accumulate(
        self,
        batch: PaddedBatch,
        stream: None,  # noqa: ARG002 - nothing beside the batch
        scale: Tensor,
        complete_from: Callable[[int], None] | None = None,  # noqa: ARG002 - autograd's order
    ) -> Tensor:
        """Add ``scale`` times the gradient of the summed loss; return that sum (nats, float32)."""
        kind, dtype = batch.ids.device.type, self._dtype if self._casts else None
        casting = torch.autocast(kind, dtype, enabled=self._casts, cache_enabled=False)
        with torch.enable_grad(), casting, self._without_needless_masks(batch.ids):
            hidden = self._logits.hidden(input_ids=batch.ids)
            summed = loss_of(hidden.flatten(0, 1)[batch.where], self._logits, batch.targets)
            scaled = summed * scale
        scaled.backward()  # type: ignore[no-untyped-call]
        return summed.detach()

    def _without_needless_masks(self, ids: Tensor) -> AbstractContextManager[None]:
        """While a pass over ``ids`` (rows, tokens) is recorded, those that a launched one left out.

        A mask that long rows do without, shorter ones do without as well.
        """
        tokens = ids.shape[1]
        if not ids.is_cuda:
            return nullcontext()
        if not torch.cuda.is_current_stream_capturing():
            return self._masks.setdefault(tokens, NeedlessMasks(self._attention)).noted()
        known = [length for length in self._masks if length >= tokens]
        return self._masks[min(known)].left_out() if known else nullcontext()
