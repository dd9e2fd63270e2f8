"""A scheme as somebody else's package would bring it: four bits, rounded to nearest, by row."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.quantize.scheme import Scheme, Target, Weighed
from harness.spec.schema import Frozen
from harness.spec.variant import Quantization


class RoundedLinear(nn.Linear):
    """Two weights a byte and a float32 scale for each output."""

    def __init__(self, linear: nn.Linear, compute: torch.dtype, shrink: float) -> None:
        with torch.device("meta"):
            super().__init__(linear.in_features, linear.out_features, linear.bias is not None)
        weight = linear.weight.data.float()
        scale = shrink * weight.abs().amax(dim=1, keepdim=True) / 7
        codes = (weight / scale).round().clamp(-8, 7).add(8).to(torch.uint8)
        packed = codes[:, 0::2] | codes[:, 1::2] << 4
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = linear.bias
        self.register_buffer("scale", scale)
        self.compute, self.shrink = compute, shrink

    def dequantized(self) -> Tensor:
        codes = torch.stack((self.weight & 15, self.weight >> 4), dim=2).flatten(1)
        return ((codes.float() - 8) * self.scale).to(self.compute)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.dequantized().to(x.dtype), self.bias)


class RoundedSettings(Frozen):
    """Settings in a variant's ``[quantization]`` beside ``type``."""

    shrink: float = 1.0


class Rounded(Scheme):
    """Everything that the harness asks of a scheme which replaces layers after loading."""

    name = "rounded"
    settings = RoundedSettings

    def stored_bytes(self, quantization: Quantization, rows: int, columns: int) -> int:
        del quantization  # every setting takes the same room
        return rows * columns // 2 + 4 * rows

    def quantize(self, linear: nn.Linear, target: Target) -> nn.Module:
        return RoundedLinear(linear, target.compute, float(target.quantization.settings["shrink"]))

    def weigh(self, parameter: nn.Parameter, module: nn.Module) -> Weighed | None:
        if not isinstance(module, RoundedLinear) or parameter is not module.weight:
            return None
        label = Quantization(type=self.name, shrink=module.shrink).label
        compute = str(module.compute).removeprefix("torch.")
        stored = parameter.numel() + 4 * module.scale.numel()
        return Weighed(label, 2 * parameter.numel(), stored, compute)

    def dequantize(self, layer: nn.Module) -> Tensor:
        return layer.dequantized()


ROUNDED = Rounded()
