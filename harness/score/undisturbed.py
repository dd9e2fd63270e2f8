"""Undisturbed: a model is scored without a trace: modes, cache setting and random states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Score in evaluation mode, then put back training modes, cache setting, random states."""
    import random

    import numpy as np
    import torch

    modes = {module: module.training for module in model.modules()}
    config: Any = model.config
    use_cache = getattr(config, "use_cache", None)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            model.eval()
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        if use_cache is not None:
            config.use_cache = use_cache
        random.setstate(python_state)
        np.random.set_state(numpy_state)
