"""HQQ: half-quadratic quantization (Badri and Shaji, 2023) to 2, 3, 4 or 8 bits in groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from harness.quantize.grouped_scheme import GroupedScheme
from harness.quantize.scheme import Target
from harness.spec.schema import Frozen

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.quantize.grouped import Codes
    from harness.spec.variant import Quantization


class HqqSettings(Frozen):
    """Bits of a weight, and how many weights share a scale and a zero."""

    bits: Literal[2, 3, 4, 8] = 4
    group_size: Literal[16, 32, 64, 128, 256] = 64


class Hqq(GroupedScheme):
    """Codes, scales and zeros come from the package; they are packed without a gap here.

    The package's own layer stores three bits in 3.2, and its constants in the compute dtype.
    """

    name = "hqq"
    packages = ("hqq",)
    extra = "hqq"
    settings = HqqSettings

    def grid(self, quantization: Quantization) -> tuple[int, int]:
        """As asked for."""
        found = _settings(quantization)
        return found.bits, found.group_size

    def quantize(self, linear: nn.Linear, target: Target) -> nn.Module:
        """The zeros are fitted so that few weights err much (the package's default solver)."""
        from harness.quantize.grouped import GroupedLinear

        found = _settings(target.quantization)
        return GroupedLinear(linear, _solve(linear.weight.data, found), target)

    def phantom(self, linear: nn.Linear, target: Target) -> nn.Module:
        """The same layer without a solution."""
        from harness.quantize.grouped import GroupedLinear, empty_codes

        found = _settings(target.quantization)
        return GroupedLinear(linear, empty_codes(linear, found.bits, found.group_size), target)


def _settings(quantization: Quantization) -> HqqSettings:
    return HqqSettings.model_validate(quantization.settings)


def _solve(weight: Tensor, settings: HqqSettings) -> Codes:
    from hqq.core.quantize import Quantizer

    from harness.quantize.grouped import Codes, grouped

    codes, meta = Quantizer.quantize(
        grouped(weight, settings.group_size),
        nbits=settings.bits,
        group_size=settings.group_size,
        round_zero=settings.bits == 4,  # as the package's own configuration chooses
        axis=1,
        bitpack=False,
        device=str(weight.device),
    )
    # what the solver gives belongs to its inference mode
    return Codes(codes.clone(), meta["scale"].clone(), meta["zero"].clone(), settings.bits)


HQQ = Hqq()
