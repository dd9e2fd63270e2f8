"""Random state: of all generators that training draws from, kept, restored, left alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def random_state() -> dict[str, Any]:
    """States of the generators that training may draw from."""
    import numpy as np
    import torch

    numpy_state: Any = np.random.get_state()
    name, key, *rest = numpy_state
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(key.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the generators back."""
    import numpy as np
    import torch

    random.setstate(state["python"])
    name, key, *rest = state["numpy"]
    np.random.set_state((name, key.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def undisturbed_random_state() -> Iterator[None]:
    """Put the generators back as they were."""
    before = random_state()
    try:
        yield
    finally:
        restore_random_state(before)
