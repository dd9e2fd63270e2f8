"""Grouped scheme: what schemes share whose weights are codes in groups, without any library."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from harness.quantize.scheme import Scheme, Weighed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.spec.variant import Quantization

CONSTANT_BYTES = 4  # of a scale and a zero, float16 each


class GroupedScheme(Scheme):
    """Layers become :class:`harness.quantize.grouped.GroupedLinear`."""

    @abstractmethod
    def grid(self, quantization: Quantization) -> tuple[int, int]:
        """Bits of a code, and how many weights share a scale and a zero."""

    def stored_bytes(self, quantization: Quantization, rows: int, columns: int) -> int:
        """Packed codes, scales and zeros; the last group is filled up."""
        bits, group = self.grid(quantization)
        return -(-rows * columns // group) * (group * bits // 8 + CONSTANT_BYTES)

    def weigh(self, parameter: nn.Parameter, module: nn.Module) -> Weighed | None:
        """Codes, scales and zeros."""
        from harness.quantize.grouped import weigh_packed

        return weigh_packed(self.name, parameter, module)

    def dequantize(self, layer: nn.Module) -> Tensor:
        """(codes - zero) * scale."""
        found: Tensor = layer.dequantized()  # type: ignore[operator]
        return found
