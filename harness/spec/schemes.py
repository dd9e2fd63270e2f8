"""Schemes: the names of the ways to quantize a base, and where the code of each one lies."""

from __future__ import annotations

from typing import Any, Protocol

from harness.errors import UserError
from harness.spec.device import Device
from harness.spec.plugins import Plugins
from harness.spec.variant import Quantization

SCHEMES = Plugins(
    "quantization",
    "finetune_harness.schemes",
    {
        "none": "harness.quantize.unquantized:UNQUANTIZED",
        "nf4": "harness.quantize.bitsandbytes:NF4",
        "fp4": "harness.quantize.bitsandbytes:FP4",
        "int8": "harness.quantize.llm_int8:INT8",
        "int4": "harness.quantize.affine:INT4",
        "hqq": "harness.quantize.hqq:HQQ",
        "nvfp4": "harness.quantize.microscaling:NVFP4",
        "mxfp4": "harness.quantize.microscaling:MXFP4",
        "torchao_int4": "harness.quantize.absent:TORCHAO_INT4",
        "torchao_int8": "harness.quantize.torchao:INT8",
        "torchao_float8": "harness.quantize.torchao:FLOAT8",
        "gptq": "harness.quantize.absent:GPTQ",
        "awq": "harness.quantize.absent:AWQ",
        "aqlm": "harness.quantize.absent:AQLM",
        "eetq": "harness.quantize.absent:EETQ",
    },
)


class PlannedScheme(Protocol):
    """What a plan asks a scheme. Answering takes no deep learning library."""

    def resolve(self, asked: Quantization, where: object) -> Quantization:
        """``asked`` with every setting checked; raises InvalidFile or UnknownName."""

    def refuses(self, asked: Quantization, device: Device) -> str | None:
        """Why ``asked`` cannot be used on ``device`` with what is installed; None if it can."""


def scheme_names() -> list[str]:
    """Names of all schemes, those of installed packages included, sorted."""
    return SCHEMES.names()


def load_scheme(name: str, where: object = None) -> Any:
    """The scheme of that name (:class:`harness.quantize.scheme.Scheme`).

    Raises:
        UnknownName: there is none.
        UserError: the package that brings it cannot be imported.
    """
    return SCHEMES.load(name, where)


def resolve_quantization(asked: Quantization, where: object) -> Quantization:
    """``asked`` as its scheme understands it, every setting checked.

    Raises:
        UnknownName: no scheme of that name, or no such setting.
        InvalidFile: a value that the scheme does not take.
    """
    scheme: PlannedScheme = load_scheme(asked.type, f"{where}, quantization.type")
    return scheme.resolve(asked, f"{where}, [quantization]")


def check_usable(asked: Quantization, device: Device) -> None:
    """Refuse a quantization that ``device`` or the installed packages cannot carry out.

    Raises:
        UserError: with the scheme's reason.
    """
    scheme: PlannedScheme = load_scheme(asked.type)
    reason = scheme.refuses(asked, device)
    if reason is not None:
        raise UserError(
            f"quantization {asked.label} cannot be used: {reason}", where="quantization.type"
        )
