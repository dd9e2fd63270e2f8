"""Census: every parameter of the loaded model counted, weighed and checked against the plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.errors import CensusError
from harness.records.record import Census, CensusRow
from harness.spec.plan import Plan

if TYPE_CHECKING:
    from torch import nn

Key = tuple[str, str, bool]


def take_census(model: nn.Module) -> Census:
    """Read dtypes, quantization and sizes off the modules.

    Elements are logical: a 4-bit weight counts its real shape. Bytes are what is stored: packed
    weights plus their quantization state (block constants, and with double quantization the
    quantized constants, their own constants and the offset). The code books are left out: 64 bytes
    and 1 KiB that belong to the format, not to the model.
    """
    elements: dict[Key, int] = defaultdict(int)
    size: dict[Key, int] = defaultdict(int)
    compute: set[str] = set()
    for parameter, module in _parameters(model):
        key, count, stored = _weigh(parameter, module)
        elements[key] += count
        size[key] += stored
        if key[1] not in ("none", "int8"):
            compute.add(_name(module.compute_dtype))
    rows = tuple(
        CensusRow(
            dtype=key[0],
            quantization=key[1],
            trainable=key[2],
            elements=elements[key],
            bytes=size[key],
        )
        for key in sorted(elements)
    )
    return Census(rows=rows, compute_dtype="+".join(sorted(compute)) or None)


def _parameters(model: nn.Module) -> Iterator[tuple[nn.Parameter, Any]]:
    """Each distinct parameter once, with a module that holds it."""
    seen: set[int] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield parameter, module


def _weigh(parameter: nn.Parameter, module: Any) -> tuple[Key, int, int]:
    state = getattr(parameter, "quant_state", None)
    stored = parameter.numel() * parameter.element_size()
    if state is not None:
        quantization = state.quant_type + ("+dq" if state.nested else "")
        key = (_name(parameter.dtype), quantization, parameter.requires_grad)
        return key, state.shape.numel(), stored + _state_bytes(state)
    scales = getattr(parameter, "SCB", None)
    if scales is None:
        state8 = getattr(module, "state", None)
        scales = getattr(state8, "SCB", None) if parameter.dtype.itemsize == 1 else None
    if scales is not None:
        key = (_name(parameter.dtype), "int8", parameter.requires_grad)
        return key, parameter.numel(), stored + scales.numel() * scales.element_size()
    key = (_name(parameter.dtype), "none", parameter.requires_grad)
    return key, parameter.numel(), stored


def _state_bytes(state: Any) -> int:
    """Block constants of one quantized weight, in bytes."""
    total: int = state.absmax.numel() * state.absmax.element_size()
    if state.nested:
        nested = state.state2.absmax
        total += nested.numel() * nested.element_size()
        total += state.offset.element_size()
    return total


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def check_census(
    census: Census, plan: Plan, trainable: int | None = None, quantized: int | None = None
) -> None:
    """Fail unless the loaded model is the planned one.

    ``trainable`` and ``quantized`` are the planned numbers of trainable and of quantized
    parameters (shape counts), where known.

    Raises:
        CensusError: naming what differs.
    """
    wrong = [
        *_differences(census, plan),
        *_miscounted(census, plan, trainable, quantized),
    ]
    if wrong:
        raise CensusError(
            "the loaded model is not the planned one: " + "; ".join(wrong),
            where=f"variant {plan.variant}",
            hint="this is a defect of the harness or of a library version; please report it",
        )


def _differences(census: Census, plan: Plan) -> Iterator[str]:
    found = {row.quantization for row in census.rows} - {"none"}
    asked = plan.quantization.type
    planned = set() if asked == "none" else {asked + ("+dq" if plan.quantization.double else "")}
    if found != planned:
        yield f"quantization {sorted(found) or 'none'}, planned {sorted(planned) or 'none'}"
    if census.compute_dtype not in (None, plan.precision.compute):
        yield f"compute dtype {census.compute_dtype}, planned {plan.precision.compute}"
    dtypes = {row.dtype for row in census.rows if row.trainable}
    if plan.trains and dtypes != {plan.precision.trainable}:
        yield f"trainable parameters in {sorted(dtypes)}, planned {plan.precision.trainable}"


def _miscounted(
    census: Census, plan: Plan, trainable: int | None, quantized: int | None
) -> Iterator[str]:
    if trainable is not None and census.trainable != trainable:
        yield f"{census.trainable:,} trainable parameters, planned {trainable:,}"
    found = sum(row.elements for row in census.rows if row.quantization != "none")
    planned = 0 if plan.quantization.type == "none" else quantized
    if planned is not None and found != planned:
        yield f"{found:,} quantized parameters, planned {planned:,}"
