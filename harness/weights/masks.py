"""Masks: which attention masks a pass needs, and how transformers is made to make others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def attention_of(model: Any) -> str:
    """Transformers' name of the attention that a model, or one that PEFT has wrapped, runs."""
    return str(model.config.get_text_config()._attn_implementation)  # noqa: SLF001


class NeedlessMasks:
    """The masks of a pass that attention does without, since plain causality is what it computes.

    Whether it can is a question to the device, which a pass that is being recorded cannot ask:
    there transformers makes all masks, and attention to them is slower. The same pass launched
    before tells.
    """

    def __init__(self, implementation: str) -> None:
        """Of an attention implementation, by transformers' name."""
        self._implementation = implementation
        self._needless: list[bool] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """While this is open, a pass is launched."""
        self._needless = []

        def make(own: Callable[..., Any], settings: dict[str, Any]) -> Any:
            mask = own(**settings)
            self._needless.append(mask is None)
            return mask

        with self._made_by(make):
            yield

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """While this is open, the same pass is recorded."""
        known = iter(self._needless)

        def make(own: Callable[..., Any], settings: dict[str, Any]) -> Any:
            return None if next(known, False) else own(**settings)

        with self._made_by(make):
            yield

    @contextmanager
    def _made_by(self, make: Callable[[Callable[..., Any], dict[str, Any]], Any]) -> Iterator[None]:
        from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

        name = self._implementation
        own = ALL_MASK_ATTENTION_FUNCTIONS.get(name)
        if own is None:  # it knows no masks
            yield
            return
        with replaced(ALL_MASK_ATTENTION_FUNCTIONS, name, lambda **settings: make(own, settings)):
            yield


@contextmanager
def replaced(interface: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """While this is open, one of transformers' interfaces has ``function`` under ``name``."""
    overlaid = interface._local_mapping  # noqa: SLF001 - what stands before the registered ones
    before = overlaid.get(name)
    overlaid[name] = function
    try:
        yield
    finally:
        if before is None:
            del overlaid[name]
        else:
            overlaid[name] = before
