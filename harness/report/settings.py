"""Settings: what a plan says, in the words and keys by which readers tell rows apart."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.spec.plan import Plan

BESIDE_SETTINGS = frozenset({"seed", "substitutions", "request", "protocol"})


def method_of(plan: Plan) -> str:
    """How a plan trains, in a word: untrained, full, or the kind of its adapter."""
    if plan.method == "none":
        return "untrained"
    if plan.adapter is None:
        return plan.method
    fields = plan.adapter.fields
    for flag, name in (("use_dora", "dora"), ("use_rslora", "rslora")):
        if fields.get(flag):
            return name
    return plan.adapter.type.lower()


def alpha_over_rank(plan: Plan) -> float | None:
    """The scale LoRA multiplies its product with: alpha/r, or alpha/sqrt(r) with rsLoRA."""
    if plan.adapter is None:
        return None
    fields = plan.adapter.fields
    alpha, rank = fields.get("lora_alpha"), fields.get("r")
    if not isinstance(alpha, int | float) or not isinstance(rank, int) or rank <= 0:
        return None
    return alpha / (rank**0.5 if fields.get("use_rslora") else rank)


def bits_of(plan: Plan) -> int:
    """Bits of a stored base weight: a setting or the scheme's name says them; else 16."""
    stated = plan.quantization.settings.get("bits")
    if isinstance(stated, int):
        return stated
    found = re.search(r"[a-z](\d+)", plan.quantization.type)
    return 16 if plan.quantization.type == "none" or found is None else int(found[1])


def settings(plan: Plan, *beside: str) -> dict[str, Any]:
    """The plan as data without what two runs of a row may differ in, and without ``beside``."""
    data = plan.model_dump(mode="json", exclude={*BESIDE_SETTINGS, *beside})
    data["score"].pop("primary")
    return data


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys to leaf values; lists are leaves."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def differing(plans: Sequence[Plan]) -> list[str]:
    """Dotted keys in which the settings of plans differ, in order."""
    flat = [flatten(settings(plan, "schema_version")) for plan in plans]
    return [
        key
        for key in sorted(set().union(*flat))
        if len({json.dumps(table.get(key)) for table in flat}) > 1
    ]


def plain(value: object) -> str:
    """A plan value as a person would write it; a path shows its last part only."""
    if isinstance(value, str):
        return value.rsplit("/", 1)[-1] if "/" in value and not value.startswith("hub:") else value
    return "–" if value is None else json.dumps(value, ensure_ascii=False)


def without(plan: Plan, *keys: str) -> str:
    """A plan's settings but for the variant's name and some keys, as one text."""
    return json.dumps(settings(plan, "variant", *keys), sort_keys=True)
