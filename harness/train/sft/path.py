"""Path: the plain path as planning and runs see it."""

from __future__ import annotations

from harness.records.events import Progress
from harness.records.record import TrainResult
from harness.spec.plan import Plan
from harness.train.job import TrainJob
from harness.train.peaks import TrainingPeaks
from harness.train.schedule import MicroBatch


class PlainPath:
    """TRL's SFTTrainer over rows padded to the longest of a micro-batch."""

    name = "plain"
    modules = ("harness.train.sft.trainer",)
    keeps_gradients = False
    offloads = True

    def refuses(self, plan: Plan) -> str | None:  # noqa: ARG002 - the reference takes everything
        """Nothing: what other paths refuse is trained here."""
        return None

    def footprint(self, plan: Plan, largest: MicroBatch, trainable: int) -> TrainingPeaks:  # noqa: ARG002 - counted with the model
        """The step is rehearsed on the meta device, rows padded to the longest."""
        from harness.train.sft.footprint import rehearse_training

        rows, kept = plan.training.micro_batch_size, plan.spreads_training
        return rehearse_training(plan, rows, largest.longest, keeps_gradients=kept)

    def host_bytes(self, plan: Plan, largest: MicroBatch) -> int | None:
        """Page-locked memory for the inputs of layers."""
        from harness.train.sft.footprint import host_bytes

        return host_bytes(plan, plan.training.micro_batch_size, largest.longest)

    def train(self, job: TrainJob, progress: Progress) -> TrainResult:
        """Train in place with TRL's trainer, with checkpoints."""
        from harness.train.sft.trainer import train

        return train(job, progress)


PLAIN = PlainPath()
