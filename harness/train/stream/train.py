"""The fast path: the harness's own loop over unpadded streams of conversations."""

from __future__ import annotations

import torch

from harness.errors import RunError
from harness.records.events import Progress
from harness.records.record import TrainResult
from harness.spec.plan import Plan
from harness.train.job import TrainJob
from harness.train.loop import Loop
from harness.train.stream.float8 import decoder_of
from harness.train.stream.footprint import layers_kept
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
        decoder = decoder_of(job.plan)(
            job.model,
            getattr(torch, job.plan.precision.compute),
            kept=layers_kept(training),
            offload=training.activation_offload and on_gpu,
            on_gpu=on_gpu,
        )
    except UnsupportedLayer as reason:
        raise RunError(
            f"the fast path does not take {reason}",
            where="training.speed",
            hint='use "plain"; that planning did not say so is a defect, please report it',
        ) from reason
    if on_gpu:
        _tell_failures(progress, job.plan)
    job.model.eval()
    return Loop.start(job, decoder, progress).run()


def _tell_failures(progress: Progress, plan: Plan) -> None:
    """Say which of the faster kernels this machine does without."""
    from harness.train.stream.trial import fused_failure

    reason = fused_failure(getattr(torch, plan.precision.compute))
    if reason is not None:
        progress.note(f"activations and the adapter's products are computed apart: {reason}")
