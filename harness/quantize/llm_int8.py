"""LLM.int8: eight bits a weight by bitsandbytes, a scale for each row, inputs quantized too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from harness.quantize.bitsandbytes import Bitsandbytes, tensor_bytes, tensors_in
from harness.quantize.scheme import Target, Weighed
from harness.spec.variant import Quantization

if TYPE_CHECKING:
    from torch import Tensor, nn


class Int8(Bitsandbytes):
    """Eight bits a weight and a float32 scale per output row (Dettmers et al., "LLM.int8", 2022).

    Inputs are quantized too, row by row, but for outlier columns.
    """

    flag = "is_loaded_in_8bit"
    plain_product = False

    def stored_bytes(self, quantization: Quantization, rows: int, columns: int) -> int:
        """Weights and row scales."""
        del quantization
        return rows * columns + 4 * rows

    def transformers_config(self, target: Target) -> Any:
        """Bitsandbytes' eight bits."""
        from transformers import BitsAndBytesConfig

        del target
        return BitsAndBytesConfig(load_in_8bit=True)

    def quantize(self, linear: nn.Linear, target: Target) -> nn.Module:
        """Bitsandbytes' own layer with transformers' threshold for outliers."""
        from bitsandbytes.nn import Int8Params
        from transformers import BitsAndBytesConfig

        del target
        eight = self._empty(linear, threshold=BitsAndBytesConfig().llm_int8_threshold)
        weight = Int8Params(linear.weight.data.cpu(), requires_grad=False, has_fp16_weights=False)
        eight.weight = weight.to(linear.weight.device)
        return eight  # type: ignore[no-any-return]

    def phantom(self, linear: nn.Linear, target: Target) -> nn.Module:
        """Without outlier columns (threshold 0): how many there are depends on the data."""
        import torch
        from bitsandbytes.nn import Int8Params

        del target
        eight = self._empty(linear, threshold=0.0)
        weight = torch.empty(linear.weight.shape, dtype=torch.int8, device="meta")
        eight.weight = Int8Params(weight, requires_grad=False)
        eight.state.CB, eight.state.is_training = weight, True
        eight.state.SCB = torch.empty(linear.out_features, device="meta")
        return eight  # type: ignore[no-any-return]

    def _empty(self, linear: nn.Linear, threshold: float) -> Any:
        import torch
        from bitsandbytes.nn import Linear8bitLt

        with torch.device("meta"):
            eight = Linear8bitLt(
                linear.in_features,
                linear.out_features,
                bias=linear.bias is not None,
                has_fp16_weights=False,
                threshold=threshold,
            )
        if linear.bias is not None:
            eight.bias = linear.bias
        return eight

    def weigh(self, parameter: nn.Parameter, module: nn.Module) -> Weighed | None:
        """Weights and row scales, which move to the layer's state in the first forward pass."""
        scales = _scales(parameter, module)
        if scales is None:
            return None
        return Weighed(self.name, parameter.numel(), tensor_bytes(parameter) + tensor_bytes(scales))

    def dequantize(self, layer: nn.Module) -> Tensor:
        """By bitsandbytes' own kernel."""
        from bitsandbytes.functional import int8_vectorwise_dequant

        weight: Any = layer.weight
        found: Tensor = int8_vectorwise_dequant(weight.data, _scales(weight, layer))
        return found

    def constants(self, module: nn.Module) -> Iterable[Tensor]:
        """Tensors of the layer's state."""
        return tensors_in(getattr(module, "state", None)) if self.holds(module) else ()


def _scales(parameter: nn.Parameter, module: nn.Module) -> Tensor | None:
    found: Tensor | None = getattr(parameter, "SCB", None)
    if found is None and parameter.dtype.itemsize == 1:
        found = getattr(getattr(module, "state", None), "SCB", None)
    return found


INT8 = Int8("int8")
