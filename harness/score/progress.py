"""Progress: a model that says while it is called by a library that would not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.records.events import Progress


@contextmanager
def heard(model: Any, progress: Progress, text: str) -> Iterator[None]:
    """While the model is called, say so at most twice a second."""
    told = time.monotonic()
    calls = 0

    def tell(*_: Any) -> None:
        nonlocal told, calls
        calls += 1
        if time.monotonic() - told > 0.5:
            told = time.monotonic()
            progress.note(f"{text} ({calls} forward passes)")

    hook = model.get_output_embeddings().register_forward_hook(tell)
    try:
        yield
    finally:
        hook.remove()
