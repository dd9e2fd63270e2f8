"""Microscaling: NVFP4 and MXFP4, four-bit floats with a scale of eight bits for each block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.quantize.scheme import Scheme, Target, Weighed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.spec.variant import Quantization


class FourBitFloat(Scheme):
    """Weights in a four-bit format; inputs and products in the compute dtype, on any device.

    Tensor cores that multiply such numbers round the inputs to four bits as well, which training
    an adapter does not want.
    """

    def __init__(self, name: str, block: int, *, whole: bool) -> None:
        """Take the name, the weights of a block, and whether the matrix has a scale too."""
        self.name, self._block, self._whole = name, block, whole

    def stored_bytes(self, quantization: Quantization, rows: int, columns: int) -> int:
        """Half a byte a weight, a byte a block, and four for the matrix; the last block is full."""
        del quantization
        blocks = -(-rows * columns // self._block)
        return blocks * (self._block // 2 + 1) + (4 if self._whole else 0)

    def quantize(self, linear: nn.Linear, target: Target) -> nn.Module:
        """Each weight rounded to the nearest float of its block."""
        from harness.quantize.microscaled import FloatLinear, to_mxfp4, to_nvfp4

        convert = to_nvfp4 if self._whole else to_mxfp4
        return FloatLinear(linear, convert(linear.weight.data, self._block), target)

    def phantom(self, linear: nn.Linear, target: Target) -> nn.Module:
        """The same layer without values."""
        from harness.quantize.microscaled import FloatLinear, empty_floats

        return FloatLinear(linear, empty_floats(linear, self._block, whole=self._whole), target)

    def weigh(self, parameter: nn.Parameter, module: nn.Module) -> Weighed | None:
        """Codes and scales."""
        from harness.quantize.grouped import weigh_packed

        return weigh_packed(self.name, parameter, module)

    def dequantize(self, layer: nn.Module) -> Tensor:
        """Floats times scales."""
        found: Tensor = layer.dequantized()  # type: ignore[operator]
        return found


NVFP4 = FourBitFloat("nvfp4", 16, whole=True)
MXFP4 = FourBitFloat("mxfp4", 32, whole=False)
