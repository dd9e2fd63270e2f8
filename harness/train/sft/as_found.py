"""AsFound: a model given back to itself, during and after training by SFTTrainer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class AsFound:
    """The forward methods and settings that SFTTrainer changes, as they were before."""

    def __init__(self, model: Any) -> None:
        """Remember how ``model`` is."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._forwards = _forwards_of((model, base))
        configs = [item for item in (base.config, base.generation_config) if item is not None]
        names = ("bos_token_id", "eos_token_id", "pad_token_id", "use_cache")
        self._settings = [
            (one, name, getattr(one, name, None)) for one in configs for name in names
        ]

    def put_back(self) -> None:
        """Undo SFTTrainer's changes."""
        _set_forwards(self._forwards)
        for item, name, value in self._settings:
            setattr(item, name, value)

    @contextmanager
    def for_a_while(self) -> Iterator[None]:
        """Have the model's own forward methods in place."""
        changed = _forwards_of([module for module, _ in self._forwards])
        _set_forwards(self._forwards)
        try:
            yield
        finally:
            _set_forwards(changed)


def _forwards_of(modules: Iterable[Any]) -> list[tuple[Any, Any]]:
    """The modules, each with the forward method that its instance has of its own, or None."""
    return [(module, module.__dict__.get("forward")) for module in modules]


def _set_forwards(forwards: Iterable[tuple[Any, Any]]) -> None:
    for module, forward in forwards:
        module.__dict__.pop("forward", None)
        if forward is not None:
            module.forward = forward


@contextmanager
def left_as_found(model: Any) -> Iterator[AsFound]:
    """Undo what SFTTrainer does to a model besides training it; leave it in evaluation mode."""
    found = AsFound(model)
    try:
        yield found
    finally:
        found.put_back()
        if getattr(model, "is_gradient_checkpointing", False):
            model.gradient_checkpointing_disable()
        model.zero_grad(set_to_none=True)
        model.eval()
