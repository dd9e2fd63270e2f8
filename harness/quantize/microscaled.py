"""Microscaled: a linear layer of four-bit floats whose blocks have a scale of eight bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from harness.quantize.grouped import PackedLinear, grouped, pack, unpack
from harness.quantize.scheme import Target

# E2M1: a sign, two bits of exponent, one of mantissa; codes 8 to 15 are the negative ones.
VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
MIDDLES = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
LARGEST = VALUES[-1]
E4M3 = torch.float8_e4m3fn
E4M3_LARGEST, E4M3_SMALLEST = torch.finfo(E4M3).max, torch.finfo(E4M3).tiny
E8M0_BIAS = 127
BITS = 4


@dataclass(frozen=True)
class Floats:
    """A weight in four-bit floats before packing.

    ``codes`` are (blocks, block size) below 16; ``scale`` (blocks, 1) are the bits of each block's
    scale, E4M3 or E8M0; ``whole`` () is the scale of all blocks, None where there is none.
    """

    codes: Tensor
    scale: Tensor
    whole: Tensor | None


class FloatLinear(PackedLinear):
    """A frozen linear layer of four-bit floats, expanded to the compute dtype when needed.

    Scales are kept as bytes, so that no cast of the model to another dtype rounds them.
    """

    scale: Tensor
    whole: Tensor | None

    def __init__(self, linear: nn.Linear, found: Floats, target: Target) -> None:
        """Take the shape and bias of ``linear``, and what its weight became."""
        super().__init__(linear, pack(found.codes, BITS), target)
        self.register_buffer("scale", found.scale)
        self.register_buffer("whole", found.whole)
        self.block = int(found.codes.shape[1])

    def dequantized(self) -> Tensor:
        """The (outputs, inputs) weight; products are float32 and then rounded once."""
        codes = unpack(self.weight, BITS)
        scale = self.scale.view(E4M3).float() if self.whole is not None else _power(self.scale)
        if self.whole is not None:
            scale = scale * self.whole
        blocks = _values(codes.device)[codes.int()].view(-1, self.block) * scale
        return self.shaped(blocks.to(self.compute))


def to_nvfp4(weight: Tensor, block: int) -> Floats:
    """NVIDIA's FP4: an E4M3 scale a block, and a float32 for the matrix that makes these fit.

    Scales are those of NVIDIA's recipe, as torchao computes them: the matrix' greatest weight
    becomes the greatest float of both formats.
    """
    blocks = grouped(weight, block)
    greatest = blocks.abs().amax(dim=1, keepdim=True)
    whole = greatest.amax() / (E4M3_LARGEST * LARGEST)
    whole = torch.where(whole == 0, torch.ones_like(whole), whole)
    scale = (greatest / LARGEST / whole).clamp(E4M3_SMALLEST, E4M3_LARGEST).to(E4M3)
    codes = _nearest(blocks * ((1.0 / whole) / scale.float()))
    return Floats(codes, scale.view(torch.uint8), whole)


def to_mxfp4(weight: Tensor, block: int) -> Floats:
    """The FP4 of OCP's Microscaling Formats 1.0 (section 6.3): a power of two for each block.

    It brings a block's greatest weight between 4 and 8; what is above 6 becomes 6.
    """
    blocks = grouped(weight, block)
    _, exponent = torch.frexp(blocks.abs().amax(dim=1, keepdim=True))  # of a number from 0.5 to 1
    biased = (exponent - 3 + E8M0_BIAS).clamp(1, 2 * E8M0_BIAS).to(torch.uint8)
    return Floats(_nearest(blocks / _power(biased)), biased, None)


def empty_floats(linear: nn.Linear, block: int, *, whole: bool) -> Floats:
    """Codes and scales of the right shape on the meta device."""
    groups = -(-linear.weight.numel() // block)
    codes = torch.empty((groups, block), dtype=torch.uint8, device="meta")
    scale = torch.empty((groups, 1), dtype=torch.uint8, device="meta")
    return Floats(codes, scale, torch.empty((), device="meta") if whole else None)


@cache
def _values(device: torch.device) -> Tensor:
    """The float of every code; kept, because a CUDA graph cannot copy it from the host."""
    with torch.inference_mode(mode=False):  # a tensor of inference could not be used in training
        return torch.tensor((*VALUES, *(-value for value in VALUES)), device=device)


def _power(biased: Tensor) -> Tensor:
    """Two to the power of ``biased`` less 127, exactly: float32 has the same exponent."""
    return (biased.to(torch.int32) << 23).view(torch.float32)


def _nearest(scaled: Tensor) -> Tensor:
    """Codes of the nearest floats; of two as near, that with the even mantissa."""
    middles = torch.tensor(MIDDLES, device=scaled.device)
    size = scaled.abs()
    below, above = torch.bucketize(size, middles), torch.bucketize(size, middles, right=True)
    codes = torch.where(below % 2 == 1, above, below)
    return (codes + 8 * torch.signbit(scaled)).to(torch.uint8)
