"""Spread step: the largest moment of a training step whose every weight devices share."""

from __future__ import annotations

from harness.forecast.spread import GATHERED, spread_weights
from harness.forecast.weights import LastingBytes
from harness.spec.plan import Plan
from harness.train.peaks import TrainingPeaks

PARTS = ("gathered_layers", "gradients", "activations", "loss", "backward")


def spread_step(
    plan: Plan, standing: LastingBytes, step: TrainingPeaks, earlier: int
) -> dict[str, int]:
    """The parts of the largest moment, in bytes on a device.

    While the loss is taken no layer is gathered. When the backward pass of the layers begins, all
    that the forward pass has left is there, and two layers are whole. Near its end, at the second
    layer, so is the tensor that the last one's gradients are added up in, and most gradients are
    there. ``earlier`` are gradients of micro-batches before.
    """
    spread, devices = spread_weights(plan), plan.training.devices
    whole = spread.before + GATHERED * spread.largest
    tied = standing.base - -(-spread.bytes // devices)  # what stays whole, gradients included
    in_loss = max(step.loss, step.backward if step.backward > step.layers else 0)
    in_layer = max(0, step.layers - step.saved)
    moments = (
        {"gradients": earlier, "activations": step.saved, "loss": in_loss - step.saved},
        {
            "gathered_layers": whole,
            "gradients": max(earlier, spread.after // devices + tied),
            "activations": step.saved,
            "backward": in_layer,
        },
        {
            "gathered_layers": whole + spread.largest,
            "gradients": max(earlier, standing.gradients - whole // devices),
            "backward": in_layer,
        },
    )
    largest = max(moments, key=lambda parts: sum(parts.values()))
    return {name: largest.get(name, 0) for name in PARTS}
