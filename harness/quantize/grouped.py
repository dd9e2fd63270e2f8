"""Grouped: a linear layer of packed integer codes with a scale and a zero for each group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.quantize.scheme import Weighed

if TYPE_CHECKING:
    from harness.quantize.scheme import Target

CONSTANT = torch.float16  # of scales and zeros


@dataclass(frozen=True)
class Codes:
    """A quantized weight before packing: weight = (codes - zero) * scale.

    ``codes`` are (groups, group size) of whole numbers below 2 ** bits; ``scale`` and ``zero``
    are (groups, 1).
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    bits: int


class PackedLinear(nn.Linear):
    """A frozen linear layer whose weight is computed from packed codes whenever it is needed.

    The dequantized weight is not kept for the backward pass but computed again.
    """

    def __init__(self, linear: nn.Linear, packed: Tensor, target: Target) -> None:
        """Take the shape and bias of ``linear``, and the codes of its weight."""
        with torch.device("meta"):
            super().__init__(linear.in_features, linear.out_features, bias=False)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = linear.bias
        self.compute, self.quantization = target.compute, target.quantization

    def dequantized(self) -> Tensor:
        """The (outputs, inputs) weight in the compute dtype."""
        raise NotImplementedError

    def shaped(self, values: Tensor) -> Tensor:
        """``values`` in order as (outputs, inputs), less those that filled up the last group."""
        count = self.out_features * self.in_features
        return values.flatten()[:count].view(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """X Wᵀ + b in the compute dtype, given back in that of ``x``."""
        out: Tensor = _Product.apply(x.to(self.compute), self)  # type: ignore[no-untyped-call]
        if self.bias is not None:
            out = out + self.bias.to(out.dtype)
        return out.to(x.dtype)


class GroupedLinear(PackedLinear):
    """Whole numbers; consecutive weights of the flattened matrix make a group."""

    scale: Tensor
    zero: Tensor

    def __init__(self, linear: nn.Linear, found: Codes, target: Target) -> None:
        """Take the shape and bias of ``linear``, and what its weight became."""
        super().__init__(linear, pack(found.codes, found.bits), target)
        self.register_buffer("scale", found.scale.to(CONSTANT))
        self.register_buffer("zero", found.zero.to(CONSTANT))
        self.bits, self.group = found.bits, int(found.codes.shape[1])

    def dequantized(self) -> Tensor:
        """(codes - zero) * scale in float32, rounded once to the compute dtype.

        At eight bits zeros lie about 128, where bfloat16 has steps of half a code to a whole one.
        """
        codes = unpack(self.weight, self.bits).view(-1, self.group).float()
        return self.shaped(((codes - self.zero.float()) * self.scale.float()).to(self.compute))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        return functional.linear(x, layer.dequantized())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] @ ctx.layer.dequantized(), None


def grouped(weight: Tensor, size: int) -> Tensor:
    """The flattened weight in float32 as (groups, ``size``); the last group repeats its end."""
    flat = weight.float().flatten()
    missing = -len(flat) % size
    if missing:
        flat = torch.cat((flat, flat[-1:].expand(missing)))
    return flat.view(-1, size)


def empty_codes(linear: nn.Linear, bits: int, size: int) -> Codes:
    """Codes of the right shape on the meta device."""
    groups = -(-linear.weight.numel() // size)
    constants = torch.empty((groups, 1), device="meta")
    codes = torch.empty((groups, size), dtype=torch.uint8, device="meta")
    return Codes(codes, constants, constants, bits)


def weigh_packed(name: str, parameter: nn.Parameter, module: nn.Module) -> Weighed | None:
    """What ``parameter`` is if it is the weight of a layer of scheme ``name``."""
    if not isinstance(module, PackedLinear) or parameter is not module.weight:
        return None
    if module.quantization.type != name:
        return None
    parts = (parameter, *module.buffers(recurse=False))
    stored = sum(part.numel() * part.element_size() for part in parts)
    compute = str(module.compute).removeprefix("torch.")
    elements = module.in_features * module.out_features
    return Weighed(module.quantization.label, elements, stored, compute)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Eight codes in ``bits`` bytes, without a gap; the number of codes is a multiple of 8."""
    codes = codes.to(torch.uint8).reshape(-1, 8)
    if bits == 8:
        return codes.flatten()
    if 8 % bits:
        word = torch.zeros(len(codes), dtype=torch.int32, device=codes.device)
        for place in range(8):
            word |= codes[:, place].to(torch.int32) << bits * place
        parts = [(word >> 8 * place & 255).to(torch.uint8) for place in range(bits)]
        return torch.stack(parts, dim=1).flatten()
    share = codes.view(-1, 8 // bits)
    packed = share[:, 0].clone()
    for place in range(1, share.shape[1]):
        packed |= share[:, place] << bits * place
    return packed


def unpack(packed: Tensor, bits: int) -> Tensor:
    """The codes (uint8, one dimension) that :func:`pack` packed."""
    if bits == 8:
        return packed
    mask = 2**bits - 1
    if 8 % bits:
        bytes_ = packed.view(-1, bits).to(torch.int32)
        word = bytes_[:, 0]
        for place in range(1, bits):
            word = word | bytes_[:, place] << 8 * place
        return torch.stack([(word >> bits * place & mask).to(torch.uint8) for place in range(8)],
                           dim=1).flatten()  # fmt: skip
    parts = [packed >> bits * place & mask for place in range(8 // bits)]
    return torch.stack(parts, dim=1).flatten()
