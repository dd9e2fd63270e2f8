"""Adapters: refuse one that PEFT would refuse, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.errors import InvalidFile, UnknownName
from harness.spec import registry

if TYPE_CHECKING:
    from harness.spec.plan import Plan
    from harness.spec.variant import Adapter


def check_adapter(planned: Plan) -> None:
    """Refuse a plan whose adapter PEFT would refuse, naming the file that states it."""
    if planned.adapter is not None:
        asked = planned.request
        settings = () if asked is None else asked.settings
        check_fields(planned.adapter, planned.variant if asked is None else asked.variant, settings)


def check_fields(adapter: Adapter, variant: str, settings: tuple[str, ...] = ()) -> None:
    """Refuse what PEFT would; LoRA's defaults with other whole numbers above 0 need no look."""
    usual = {"type": "LORA", **registry.LORA_DEFAULTS}
    given = {"type": adapter.type, **adapter.fields}
    changed = {name: value for name, value in given.items() if value != usual.get(name)}
    if all(type(n) is int and n > 0 and type(usual.get(k)) is int for k, n in changed.items()):
        return
    from harness.weights.adapter import adapter_config

    with _naming(variant, settings):
        adapter_config(adapter)
        rank = adapter.fields.get("r", 1)
        if isinstance(rank, int) and rank < 1:  # PEFT finds this out layer by layer
            raise InvalidFile(
                f"{adapter.type} adapter field r = {rank}",
                where="[adapter] r",
                expected="1 or more",
            )


@contextmanager
def _naming(variant: str, settings: tuple[str, ...]) -> Iterator[None]:
    """Say which file an error about an adapter is about, and what was set besides."""
    try:
        yield
    except (InvalidFile, UnknownName) as error:
        own = [text for text in settings if text.startswith("adapter.")]
        changes = f", with --set {' '.join(own)}" if own else ""
        error.where = f"{registry.variant_path(variant)}, {error.where}{changes}"
        raise
