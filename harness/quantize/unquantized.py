"""Unquantized: base weights as they are, in the compute dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.quantize.scheme import Open, Scheme, Target, Weighed

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from harness.spec.variant import Quantization


class Unquantized(Scheme):
    """The scheme that leaves every layer alone."""

    name = "none"

    def stored_bytes(self, quantization: Quantization, rows: int, columns: int) -> int:
        """Never asked: no layer is taken."""
        raise NotImplementedError

    def load(self, open_model: Open, target: Target) -> PreTrainedModel:
        """The model as transformers reads it."""
        return open_model(device_map={"": target.device})

    def takes(self, module: nn.Module) -> bool:
        """No layer is."""
        del module
        return False

    def weigh(self, parameter: nn.Parameter, module: nn.Module) -> Weighed | None:
        """Nothing is quantized."""
        del parameter, module
        return None

    def dequantize(self, layer: nn.Module) -> Tensor:
        """The weight itself."""
        weight: Tensor = layer.weight.data  # type: ignore[assignment]
        return weight


UNQUANTIZED = Unquantized()
