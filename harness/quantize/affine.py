"""Affine: four bits rounded to nearest, with a scale and a zero for each block of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from harness.quantize.grouped_scheme import GroupedScheme
from harness.quantize.scheme import Target
from harness.spec.schema import Frozen

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.quantize.grouped import Codes
    from harness.spec.variant import Quantization

BITS = 4


class AffineSettings(Frozen):
    """A block of 32 takes 5 bits a weight, as NF4 does at that block size."""

    block_size: Literal[16, 32, 64, 128, 256] = 32


class Affine(GroupedScheme):
    """The plain alternative to NF4 (bitsandbytes issue 2086): nothing is fitted or looked up.

    A block's least weight becomes code 0 and its greatest becomes code 15.
    """

    name = "int4"
    settings = AffineSettings

    def grid(self, quantization: Quantization) -> tuple[int, int]:
        """Four bits in blocks of the size asked for."""
        return BITS, _block_size(quantization)

    def quantize(self, linear: nn.Linear, target: Target) -> nn.Module:
        """Codes from the least and the greatest weight of each block."""
        from harness.quantize.grouped import GroupedLinear

        size = _block_size(target.quantization)
        return GroupedLinear(linear, _round(linear.weight.data, size), target)


def _block_size(quantization: Quantization) -> int:
    size = quantization.settings.get("block_size", AffineSettings().block_size)
    return int(size)  # type: ignore[arg-type]


def _round(weight: Tensor, size: int) -> Codes:
    """Codes for the constants as they are stored, so that rounding these costs little."""
    import torch

    from harness.quantize.grouped import CONSTANT, Codes, grouped

    groups = grouped(weight, size)
    low, high = groups.amin(dim=1, keepdim=True), groups.amax(dim=1, keepdim=True)
    scale = ((high - low) / (2**BITS - 1)).to(CONSTANT).float()
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)  # all weights are the same
    zero = (-low / scale).to(CONSTANT).float()
    codes = (groups / scale + zero).round().clamp(0, 2**BITS - 1)
    return Codes(codes, scale, zero, BITS)


INT4 = Affine()
