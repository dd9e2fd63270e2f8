"""Adapters: refuse one that PEFT would refuse, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.spec import registry

if TYPE_CHECKING:
    from harness.spec.plan import Plan


def check_adapter(planned: Plan) -> None:
    """Refuse an adapter that PEFT would; LoRA's defaults with other numbers need no look."""
    adapter = planned.adapter
    if adapter is None:
        return
    usual = {"type": "LORA", **registry.LORA_DEFAULTS}
    given = {"type": adapter.type, **adapter.fields}
    changed = {name for name, value in given.items() if value != usual.get(name)}
    if all(type(given[name]) is int and type(usual.get(name)) is int for name in changed):
        return
    from harness.weights.adapter import adapter_config

    adapter_config(adapter)
