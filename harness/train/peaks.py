"""Peaks: what one training step allocates, at its moments."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingPeaks:
    """Bytes beside weights, optimizer state and kept gradients, at moments of one step."""

    saved: int
    """Live after the forward pass of the layers: what the backward pass reads."""
    loss: int
    """Most during the loss."""
    backward: int
    """Most during the backward pass, fresh gradients included."""
    layers: int = 0
    """Most during that of the layers, the loss's being over; 0: not told apart."""

    @property
    def peak(self) -> int:
        """The most of all."""
        return max(self.saved, self.loss, self.backward)
