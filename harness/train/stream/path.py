"""Path: the fast path as planning and runs see it."""

from __future__ import annotations

from harness.records.events import Progress
from harness.records.record import TrainResult
from harness.spec.plan import Plan
from harness.train.job import TrainJob
from harness.train.peaks import TrainingPeaks
from harness.train.schedule import MicroBatch
from harness.train.stream.known import surely_takes

OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw_8bit", "loraplus")


class StreamPath:
    """The harness's own loop over unpadded streams, with gradients written out."""

    name = "fast"
    modules = ("harness.train.stream.train",)
    keeps_gradients = True
    keeps_some_layers = True
    offloads = True

    def refuses(self, plan: Plan) -> str | None:
        """What the written-out layers do not know: most models, most adapters but plain LoRA."""
        if plan.sharded:
            return "weights that are spread over devices"
        if plan.adapter is None:
            return "full fine-tuning"
        if plan.adapter.type != "LORA":
            return f"{plan.adapter.type} adapters"
        if plan.training.attention != "full" or plan.interpolation > 1:
            return "shifted attention and interpolated positions"
        if plan.training.optimizer not in OPTIMIZERS:
            return f"the optimizer {plan.training.optimizer}"
        return None if surely_takes(plan) else _found_out(plan)

    def footprint(self, plan: Plan, largest: MicroBatch, trainable: int) -> TrainingPeaks:
        """Rows are not padded, so the tokens of the largest micro-batch count."""
        from harness.train.stream.footprint import training_peaks

        return training_peaks(plan, largest.tokens, trainable)

    def host_bytes(self, plan: Plan, largest: MicroBatch) -> int | None:
        """Page-locked memory for the inputs of layers, and what Llama layers keep beside them."""
        from harness.train.stream.footprint import host_bytes

        return host_bytes(plan, largest.tokens)

    def train(self, job: TrainJob, progress: Progress) -> TrainResult:
        """Train in place, step by step, with checkpoints."""
        from harness.train.stream.train import train

        return train(job, progress)


def _found_out(plan: Plan) -> str | None:
    """What the decoder refuses when it is given the planned model, without weights."""
    from harness.quantize.scheme import quiet_schemes

    quiet_schemes()  # transformers imports what it finds of their packages
    from harness.train.stream.refusal import refusal

    return refusal(plan)


STREAM = StreamPath()
