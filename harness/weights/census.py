"""Census: every parameter of the loaded model counted, weighed and checked against the plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.errors import CensusError
from harness.quantize.scheme import Scheme, Weighed, schemes
from harness.records.record import Census, CensusRow
from harness.spec.plan import Plan
from harness.weights.shape import ParameterCount
from harness.weights.sharded import held_parameters, own_parameters

if TYPE_CHECKING:
    from torch import nn

Key = tuple[str, str, bool]


def take_census(model: nn.Module) -> Census:
    """Read dtypes, quantization and sizes off the modules.

    Elements are logical: a 4-bit weight counts its real shape. Bytes are what is stored, the
    quantization constants included, as the weight's scheme weighs it
    (:meth:`harness.quantize.scheme.Scheme.weigh`). A model that several devices share is counted
    whole.
    """
    from harness.quantize.float8 import rounds

    elements: dict[Key, int] = defaultdict(int)
    size: dict[Key, int] = defaultdict(int)
    compute: set[str] = set()
    known = list(schemes())
    whole = [
        (_name(one.dtype), _weigh(one, module, known), one.requires_grad)
        for _, one, module in own_parameters(model)
    ]
    rounding = any(rounds(module) for module in model.modules())
    spread = [(one.dtype, one.weighed, False) for one in held_parameters(model)]
    for dtype, found, trainable in (*whole, *spread):
        key = (dtype, found.quantization, trainable)
        elements[key] += found.elements
        size[key] += found.bytes
        if found.compute is not None:
            compute.add(found.compute)
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
    compute = {"float8"} if rounding else compute
    return Census(rows=rows, compute_dtype="+".join(sorted(compute)) or None)


def _weigh(parameter: nn.Parameter, module: nn.Module, known: Sequence[Scheme]) -> Weighed:
    for scheme in known:
        found = scheme.weigh(parameter, module)
        if found is not None:
            return found
    return Weighed("none", parameter.numel(), parameter.numel() * parameter.element_size())


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def check_census(census: Census, plan: Plan, counts: ParameterCount | None = None) -> None:
    """Fail unless the loaded model is the planned one.

    ``counts`` are what the plan expects, where they are known.

    Raises:
        CensusError: naming what differs.
    """
    wrong = [*_differences(census, plan)]
    if counts is not None:
        wrong += _miscounted(census, counts)
    if wrong:
        raise CensusError(
            "the loaded model is not the planned one: " + "; ".join(wrong),
            where=f"variant {plan.variant}",
            hint="this is a defect of the harness or of a library version; please report it",
        )


def _differences(census: Census, plan: Plan) -> Iterator[str]:
    found = {row.quantization for row in census.rows} - {"none"}
    planned = set() if plan.quantization.type == "none" else {plan.quantization.label}
    if found != planned:
        yield f"quantization {sorted(found) or 'none'}, planned {sorted(planned) or 'none'}"
    rounded = plan.precision.products == "float8"
    planned_dtype = "float8" if rounded else plan.precision.compute
    if census.compute_dtype not in ((planned_dtype,) if rounded else (None, planned_dtype)):
        yield f"compute dtype {census.compute_dtype}, planned {planned_dtype}"
    dtypes = {row.dtype for row in census.rows if row.trainable}
    if plan.trains and dtypes != {plan.precision.trainable}:
        yield f"trainable parameters in {sorted(dtypes)}, planned {plan.precision.trainable}"


def _miscounted(census: Census, counts: ParameterCount) -> Iterator[str]:
    quantized = sum(row.elements for row in census.rows if row.quantization != "none")
    for what, found, planned in (
        ("parameters", census.total, counts.total),
        ("trainable parameters", census.trainable, counts.trainable),
        ("quantized parameters", quantized, counts.quantized),
    ):
        if found != planned:
            yield f"{found:,} {what}, planned {planned:,}"
