"""The fast path: the harness's own loop over unpadded streams of conversations."""

from __future__ import annotations

import torch

from harness.errors import RunError
from harness.records.events import Progress
from harness.records.record import TrainResult
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
    job.model.eval()
    return Loop.start(job, decoder, progress).run()
