"""Adapter start: what a plan's adapter holds before training, read off a model that has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness.errors import RunError
from harness.train.checkpoint import trainable_weights


@dataclass(frozen=True)
class AdapterStart:
    """Trained weights by name, and what the products of the adapter are scaled by."""

    weights: dict[str, Tensor]
    scale: float

    @classmethod
    def of(cls, model: Any) -> AdapterStart:
        """Copies of the LoRA weights of ``model``.

        Raises:
            RunError: its layers scale their adapters differently.
        """
        from peft.tuners.lora import LoraLayer

        layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        scales = {scale for layer in layers for scale in layer.scaling.values()}
        if len(scales) != 1:
            raise RunError(f"plans do not train together with adapters scaled by {scales}")
        weights = trainable_weights(model).items()
        return cls({name: weight.clone() for name, weight in weights}, scales.pop())
