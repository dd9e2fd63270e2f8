"""Path: the recorded path as planning and runs see it."""

from __future__ import annotations

from harness.records.events import Progress
from harness.records.record import TrainResult
from harness.spec.methods import needs_of
from harness.spec.plan import Plan
from harness.spec.variant import Adapter
from harness.train.job import TrainJob
from harness.train.peaks import TrainingPeaks
from harness.train.schedule import MicroBatch


def _unsteady(adapter: Adapter) -> str | None:
    """What an adapter does that differs from step to step."""
    if needs_of(adapter).allocates:
        return f"{adapter.type} adapters, whose ranks move"
    if needs_of(adapter).draws:
        return f"{adapter.type} adapters, which draw random numbers at every step"
    if needs_of(adapter).sees_all:
        return f"{adapter.type} adapters, for which padding counts"
    rates = {key: rate for key, rate in adapter.model_dump().items() if "dropout" in key}
    drops = any(isinstance(rate, (int, float)) and rate > 0 for rate in rates.values())
    return "adapter dropout" if drops else None


class RecordedPath:
    """The harness's own loop over padded rows, with the gradients of autograd.

    It computes what the plain path does for almost any model and adapter. What it saves is the
    time in which the host starts thousands of small kernels: they are recorded once.
    """

    name = "recorded"
    modules = ("harness.train.recorded.train",)
    keeps_gradients = True

    def refuses(self, plan: Plan) -> str | None:
        """What cannot be recorded: whatever differs from step to step, or needs no GPU."""
        if plan.sharded:
            return "weights that are spread over devices"
        if plan.device.kind != "cuda":
            return "a device without CUDA graphs"
        if plan.training.attention != "full":
            return f"{plan.training.attention} attention"
        if plan.training.packing:
            return "packed rows, whose masks differ from batch to batch"
        if plan.quantization.type == "int8":
            return "int8 layers, which look for outliers in every batch"
        return None if plan.adapter is None else _unsteady(plan.adapter)

    def footprint(self, plan: Plan, largest: MicroBatch, trainable: int) -> TrainingPeaks:  # noqa: ARG002 - counted with the model
        """The step is rehearsed on the meta device, rows padded to the longest."""
        from harness.train.sft.footprint import rehearse_training

        rows = plan.training.micro_batch_size
        return rehearse_training(plan, rows, largest.longest, keeps_gradients=True)

    def train(self, job: TrainJob, progress: Progress) -> TrainResult:
        """Train in place, step by step, with checkpoints."""
        from harness.train.recorded.train import train

        return train(job, progress)


RECORDED = RecordedPath()
