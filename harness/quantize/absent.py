"""Absent: known ways to quantize that are not offered, each with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.quantize.scheme import Scheme, Weighed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.spec.device import Device
    from harness.spec.variant import Quantization


class Absent(Scheme):
    """A name that people ask for; planning refuses it and says why."""

    def __init__(self, name: str, reason: str) -> None:
        """Take the name and the reason."""
        self.name, self.reason = name, reason

    def refuses(self, asked: Quantization, device: Device) -> str | None:
        """Always."""
        del asked, device
        return self.reason

    def stored_bytes(self, quantization: Quantization, rows: int, columns: int) -> int:
        """Never asked: no plan gets that far."""
        raise NotImplementedError

    def weigh(self, parameter: nn.Parameter, module: nn.Module) -> Weighed | None:
        """Nothing is quantized so."""
        del parameter, module
        return None

    def dequantize(self, layer: nn.Module) -> Tensor:
        """Never asked."""
        raise NotImplementedError


CALIBRATED = (
    "gptqmodel fits its codes to rows of data; its release 7.7 asks for torch 2.14.1 or newer, 7.6 "
    "for numpy 2.2.6 and no other, and the harness is tested with neither; "
    "use hqq or int4, which need no data"
)
GPTQ = Absent("gptq", CALIBRATED)
AWQ = Absent("awq", CALIBRATED)
AQLM = Absent(
    "aqlm",
    "its weights are quantized beforehand, in hours, and the harness starts from 16 bits; "
    "use hqq with bits = 2 for as few bits",
)
EETQ = Absent(
    "eetq",
    "pip finds no distribution of its package for this Python; "
    "use torchao_int8, whose codes are the same: eight bits and a scale for each output",
)
TORCHAO_INT4 = Absent(
    "torchao_int4",
    "torchao's four-bit kernels have no backward pass, and PEFT refuses their layers; "
    "use int4, which rounds alike: a scale and a zero for each group of weights",
)
