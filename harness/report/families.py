"""Families: kinds of variants, which figures of many variants tell apart by mark and colour."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.report.figures.canvas import Mark
from harness.report.rows import fill_of
from harness.report.settings import bits_of, method_of
from harness.spec.plan import Plan


@dataclass(frozen=True)
class VariantFamily:
    """A kind of variant, and indices of its colour and marker."""

    name: str
    colour: int
    marker: int


LORA = VariantFamily("LoRA family", 0, 0)
FULL = VariantFamily("full fine-tuning", 1, 1)
OTHER = VariantFamily("other adapters", 2, 5)
UNTRAINED = VariantFamily("untrained", 7, 3)
ORDER = (LORA, FULL, OTHER, UNTRAINED)
LORA_METHODS = frozenset({"lora", "dora", "rslora", "adalora"})
QUANTIZED = 5  # the colour of what is trained on a base of fewer bits


def family_of(plan: Plan) -> VariantFamily:
    """Of which kind a variant is, whatever its base is stored in."""
    method = method_of(plan)
    if method == "untrained":
        return UNTRAINED
    if method in LORA_METHODS:
        return LORA
    return OTHER if plan.adapter is not None else FULL


def family_mark(plan: Plan) -> Mark:
    """The family's marker and colour; the fill still says the bits of the weights."""
    family = family_of(plan)
    quantized = plan.trains and bits_of(plan) < 16
    return Mark(QUANTIZED if quantized else family.colour, family.marker, fill_of(plan))


def family_place(plan: Plan) -> tuple[int, int]:
    """Where a variant stands among the families: one after the other, most bits first."""
    return ORDER.index(family_of(plan)), -bits_of(plan)


def family_key(plans: Iterable[Plan]) -> tuple[tuple[Mark, str], ...]:
    """The marks of these variants and what each says, in the order of the families."""
    found: dict[tuple[int, int], tuple[Mark, str]] = {}
    for plan in plans:
        name, bits = family_of(plan).name, bits_of(plan)
        said = name if bits >= 16 else f"{name}, {bits}-bit base"
        found.setdefault(family_place(plan), (family_mark(plan), said))
    return tuple(found[place] for place in sorted(found))
