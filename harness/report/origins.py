"""Origins: which weights and task data runs started from, also where old records do not say."""

from __future__ import annotations

from collections.abc import Sequence

from harness.spec.model import FolderSource, WheelSource
from harness.spec.plan import Plan

# Of these the corpus decides the items, whose digest is compared anyway.
OF_CORPUS = ("held_out", "validation", "generations", "fidelity", "preference", "held_out_replies")


def weights_of(plan: Plan) -> str | None:
    """Which base weights a run had, wherever they lie; None where its record does not say.

    Plans of older harnesses have no digest of a model's folder.
    """
    source = plan.model.source
    if isinstance(source, FolderSource):
        return plan.model_sha256
    return source.sha256 if isinstance(source, WheelSource) else source.model_dump_json()


def settled(values: Sequence[str | None]) -> list[str]:
    """The values of one name, where what is unknown is taken for the only one that is known.

    Where none is known all are alike. Where several are, the unknown ones cannot be told, and stay
    apart from all of them, as the empty text.
    """
    known = {value for value in values if value is not None}
    only = known.pop() if len(known) == 1 else ""
    return [only if value is None else value for value in values]


def settled_by_name(names: Sequence[str], values: Sequence[str | None]) -> list[str]:
    """The values, those of each name :func:`settled` by themselves."""
    named: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        named.setdefault(name, []).append(place)
    found = [""] * len(names)
    for places in named.values():
        known = settled([values[place] for place in places])
        for place, text in zip(places, known, strict=True):
            found[place] = text
    return found


def assumed_names(names: Sequence[str], values: Sequence[str | None]) -> set[str]:
    """The names of which some values are unknown and are taken for the only known one."""
    known: dict[str, set[str | None]] = {}
    for name, value in zip(names, values, strict=True):
        known.setdefault(name, set()).add(value)
    return {name for name, found in known.items() if None in found and len(found) == 2}


def base_weights(plans: Sequence[Plan]) -> list[str]:
    """The base weights of each plan as text; unknown ones are settled by the model's name.

    Equal texts of plans whose models have one name are equal weights.
    """
    return settled_by_name([plan.model.name for plan in plans], [weights_of(p) for p in plans])


def assumed(plans: Sequence[Plan]) -> list[str]:
    """Models of which some records know the weights and others do not, so that they are assumed."""
    names = [plan.model.name for plan in plans]
    return sorted(assumed_names(names, [weights_of(plan) for plan in plans]))
