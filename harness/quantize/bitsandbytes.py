"""Bitsandbytes: NF4 and FP4 in blocks, with or without double quantization."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from harness.quantize.scheme import Open, Scheme, Target, Weighed
from harness.spec.schema import Frozen
from harness.spec.variant import Quantization

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel

BLOCK = 64
NESTED_BLOCK = 256
CODES = 16


class Bitsandbytes(Scheme):
    """What 4 and 8 bits share."""

    packages = ("bitsandbytes",)
    loggers = ("bitsandbytes",)
    stores = True
    flag: str
    """Transformers' mark of a model loaded so, which PEFT reads."""

    def __init__(self, name: str) -> None:
        """Take the scheme's name."""
        self.name = name

    def load(self, open_model: Open, target: Target) -> PreTrainedModel:
        """Quantized by transformers while it reads the weights."""
        from harness.quantize.layers import replace_layers

        model = open_model(
            device_map={"": target.device}, quantization_config=self.transformers_config(target)
        )
        replace_layers(model, self, target)  # what transformers passes over, Falcon's for example
        keep_as_quantized(model)
        return model

    def takes(self, module: nn.Module) -> bool:
        """Linear layers that are not quantized yet."""
        return super().takes(module) and not self.holds(module)

    def mark(self, model: nn.Module) -> None:
        """PEFT asks these flags which of its layers to use."""
        for flag in ("is_loaded_in_4bit", "is_loaded_in_8bit"):
            setattr(model, flag, flag == self.flag)

    def complete(self, model: nn.Module) -> None:
        """Neither repacked nor taken for an unquantized model."""
        keep_as_quantized(model)
        self.mark(model)

    def reopened(self, model: nn.Module) -> None:
        """As after loading."""
        keep_as_quantized(model)


class BlockSettings(Frozen):
    """How many weights share a constant. Left out of a plan where it is bitsandbytes' own."""

    block_size: Literal[32, 64, 128, 256, 512, 1024, 2048, 4096] = 64


def _block_size(quantization: Quantization) -> int:
    size = quantization.settings.get("block_size", BLOCK)
    return int(size)  # type: ignore[arg-type]


class FourBit(Bitsandbytes):
    """Four bits a weight and a float32 constant per block (Dettmers et al., "QLoRA", 2023).

    With double quantization a block's constant takes 8 bits, and 256 of them share a float32;
    their mean, one more float32 a weight, is subtracted before.
    """

    doubles = True
    settings = BlockSettings
    flag = "is_loaded_in_4bit"

    def resolve(self, asked: Quantization, where: object) -> Quantization:
        """As every scheme; plans of the usual block size keep the fingerprints they always had."""
        found = super().resolve(asked, where)
        if _block_size(found) == BLOCK:
            return Quantization(type=self.name, double=asked.double)
        return found

    def load(self, open_model: Open, target: Target) -> PreTrainedModel:
        """By transformers, which knows the usual block size only."""
        if _block_size(target.quantization) == BLOCK:
            return super().load(open_model, target)
        return Scheme.load(self, open_model, target)

    def stored_bytes(self, quantization: Quantization, rows: int, columns: int) -> int:
        """Packed weights and constants; the code book of 16 values is the format's."""
        elements = rows * columns
        blocks = -(-elements // _block_size(quantization))
        constants = 4 * blocks
        if quantization.double:
            constants = blocks + 4 * -(-blocks // NESTED_BLOCK) + 4
        return -(-elements // 2) + constants

    def transformers_config(self, target: Target) -> Any:
        """Bitsandbytes' four bits; the stored layers know their block size themselves."""
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.name,
            bnb_4bit_use_double_quant=target.quantization.double,
            bnb_4bit_compute_dtype=target.compute,
        )

    def quantize(self, linear: nn.Linear, target: Target) -> nn.Module:
        """Bitsandbytes' own layer."""
        import torch
        from bitsandbytes.nn import Params4bit

        four = self._empty(linear, target)
        four.weight = Params4bit(
            linear.weight.data,
            requires_grad=False,
            quant_type=self.name,
            compress_statistics=target.quantization.double,
            blocksize=_block_size(target.quantization),
            quant_storage=target.storage or torch.uint8,
            module=four,
        ).to(linear.weight.device)
        return four  # type: ignore[no-any-return]

    def phantom(self, linear: nn.Linear, target: Target) -> nn.Module:
        """Bitsandbytes' own layer, with a quantization state that has no memory."""
        import torch
        from bitsandbytes.nn import Params4bit

        four = self._empty(linear, target)
        packed = torch.empty(
            ((linear.weight.numel() + 1) // 2, 1), dtype=torch.uint8, device="meta"
        )
        state = self._phantom_state(linear, target.quantization)
        four.weight = Params4bit(
            packed, requires_grad=False, quant_state=state, bnb_quantized=True, module=four
        )
        four.quant_state = state
        return four  # type: ignore[no-any-return]

    def _empty(self, linear: nn.Linear, target: Target) -> Any:
        import torch
        from bitsandbytes.nn import Linear4bit

        with torch.device("meta"):
            four = Linear4bit(
                linear.in_features,
                linear.out_features,
                bias=linear.bias is not None,
                compute_dtype=target.compute,
                compress_statistics=target.quantization.double,
                quant_type=self.name,
                quant_storage=target.storage or torch.uint8,
            )
        if linear.bias is not None:
            four.bias = linear.bias
        return four

    def _phantom_state(self, linear: nn.Linear, quantization: Quantization) -> Any:
        import torch
        from bitsandbytes.functional import QuantState

        def constants(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(count, dtype=dtype, device="meta")

        size = _block_size(quantization)
        blocks = -(-linear.weight.numel() // size)
        inner = None
        if quantization.double:
            inner = QuantState(
                absmax=constants(-(-blocks // NESTED_BLOCK)),
                blocksize=NESTED_BLOCK,
                code=constants(256),
                dtype=torch.float32,
            )
        return QuantState(
            absmax=constants(blocks, torch.uint8 if inner else torch.float32),
            shape=linear.weight.shape,
            code=constants(CODES),
            blocksize=size,
            quant_type=self.name,
            dtype=linear.weight.dtype,
            offset=constants(1)[0] if inner else None,
            state2=inner,
        )

    def weigh(self, parameter: nn.Parameter, module: nn.Module) -> Weighed | None:
        """Read off the quantization state.

        Block constants count, and with double quantization the quantized constants, their own
        constants and the offset. Code books do not: 64 bytes and 1 KiB that belong to the format.
        """
        state: Any = getattr(parameter, "quant_state", None)
        if state is None or state.quant_type != self.name:
            return None
        stored = tensor_bytes(parameter) + tensor_bytes(state.absmax)
        if state.nested:
            stored += tensor_bytes(state.state2.absmax) + state.offset.element_size()
        block = {} if state.blocksize == BLOCK else {"block_size": state.blocksize}
        found = Quantization(type=self.name, double=state.nested, **block)
        compute = str(module.compute_dtype).removeprefix("torch.")
        return Weighed(found.label, state.shape.numel(), stored, compute)

    def dequantize(self, layer: nn.Module) -> Tensor:
        """By bitsandbytes' own kernel."""
        from bitsandbytes.functional import dequantize_4bit

        weight: Any = layer.weight
        found: Tensor = dequantize_4bit(weight.data, weight.quant_state)
        return found.view(weight.quant_state.shape)

    def constants(self, module: nn.Module) -> Iterator[Tensor]:
        """Tensors of the quantization state."""
        return tensors_in(getattr(module, "quant_state", None))

    def workspace_bytes(self, operation: str, args: Sequence[Any]) -> int:
        """The product dequantizes the whole weight; its constants are float32 then."""
        if self.name != "nf4" or not operation.startswith("bitsandbytes.gemm_4bit"):
            return 0
        elements = int(args[2][0]) * int(args[2][1])
        return elements * int(args[0].element_size()) + elements // int(args[4]) * 4


def keep_as_quantized(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights in place.

    On a processor with AVX512-BF16 the first forward pass in evaluation mode would round the
    constants of every block to bfloat16 and give up double quantization: what is scored, and
    trained after that, would be another base than the one the plan names.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def tensors_in(holder: object) -> Iterator[Tensor]:
    """Tensors of a quantization state, constants of constants too; none of None."""
    from torch import Tensor

    for item in vars(holder).values() if holder is not None else ():
        if isinstance(item, Tensor):
            yield item
        elif hasattr(item, "absmax"):
            yield item.absmax


def tensor_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's elements."""
    return tensor.numel() * tensor.element_size()


NF4, FP4 = FourBit("nf4"), FourBit("fp4")
