"""Torchao: eight bits a weight, whole numbers or floats, and a scale for each output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.quantize.scheme import Scheme, Target, Weighed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.spec.variant import Quantization


class WeightOnly(Scheme):
    """Weights quantized by torchao, inputs in the compute dtype.

    Torchao's four bits are not offered: its packed layouts need kernels of another package that
    only some GPUs run.
    """

    packages = ("torchao",)
    extra = "torchao"
    stores = True
    # PEFT imports torchao wherever it is installed; it looks for kernels of other machines.
    loggers = ("torchao", "torch.utils._pytree")

    def __init__(self, name: str, config: str, stored: str) -> None:
        """Take the scheme's name, torchao's configuration class and the dtype of the codes."""
        self.name, self._config, self._stored = name, config, stored

    def stored_bytes(self, quantization: Quantization, rows: int, columns: int) -> int:
        """A byte a weight and a float32 scale a row."""
        del quantization
        return rows * columns + 4 * rows

    def quantize(self, linear: nn.Linear, target: Target) -> nn.Module:
        """The layer with torchao's tensor for a weight."""
        from torch import nn
        from torchao.quantization import quantize_

        del target
        around = nn.Sequential(linear)
        quantize_(around, self._own_config())
        linear.requires_grad_(requires_grad=False)
        return around[0]

    def transformers_config(self, target: Target) -> Any:
        """Torchao's configuration in transformers' words."""
        from transformers import TorchAoConfig

        del target
        return TorchAoConfig(self._own_config())

    def _own_config(self) -> Any:
        from torchao import quantization

        return getattr(quantization, self._config)()

    def weigh(self, parameter: nn.Parameter, module: nn.Module) -> Weighed | None:
        """Codes and scales inside torchao's tensor."""
        del module
        codes: Any = getattr(parameter, "qdata", None)
        if codes is None or str(codes.dtype) != f"torch.{self._stored}":
            return None
        stored = sum(part.numel() * part.element_size() for part in (codes, parameter.scale))  # type: ignore[attr-defined]
        compute = str(parameter.dtype).removeprefix("torch.")
        return Weighed(self.name, parameter.numel(), stored, compute)

    def dequantize(self, layer: nn.Module) -> Tensor:
        """By torchao."""
        found: Tensor = layer.weight.dequantize()  # type: ignore[operator]
        return found

    def constants(self, module: nn.Module) -> Iterator[Tensor]:
        """The tensors that torchao's tensor is made of."""
        if self.holds(module):
            yield module.weight.qdata  # type: ignore[union-attr, misc]
            yield module.weight.scale  # type: ignore[union-attr, misc]


INT8 = WeightOnly("torchao_int8", "Int8WeightOnlyConfig", "int8")
FLOAT8 = WeightOnly("torchao_float8", "Float8WeightOnlyConfig", "float8_e4m3fn")
