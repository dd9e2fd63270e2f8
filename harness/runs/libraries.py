"""Libraries: what every run loads before its first phase, and the settings it loads them with."""

from __future__ import annotations

import os
from importlib import import_module

from harness.origin import RESULT_ROOMS, settings, sources_digest

# What every run imports before its first phase; see harness.runs.run.
BEFORE_PHASES = (
    "harness.measure.environment",
    "harness.measure.meter",
    "harness.score.check",
    "harness.score.validation",
    "harness.train.path",
    "harness.weights.fetch",
)

# Compiled products, one a shape, that oneDNN keeps on a processor, and as many that PyTorch keeps
# of them: 1,024 each by default, of up to 0.3 MB. Nothing frees them, so what scoring a base has
# left would count for the training after it. A training step has some forty.
KEPT_PRODUCTS = "128"

# How often a thread of GNU's OpenMP, which PyTorch's wheels for Linux hold, looks whether the
# others are done before it sleeps: by default 300,000 times, some 10 ms in which the thread that it
# waits for may have no core. With other work on the machine every operation of two threads then
# takes as long as the scheduler's turns (see docs/processors.md).
LOOKS_BEFORE_SLEEP = "1000"


def set_library_defaults() -> None:
    """What libraries read when they are imported or first used; what a user has set stays."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # TRL reports every training to the hub, by a thread that begins beside the loaded model.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if "DNNL_PRIMITIVE_CACHE_CAPACITY" not in os.environ:  # oneDNN's older name for it
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KEPT_PRODUCTS)
    os.environ.setdefault("LRU_CACHE_CAPACITY", KEPT_PRODUCTS)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", LOOKS_BEFORE_SLEEP)


def load_torch() -> None:
    """Load what every run begins with, and note what decides its results as it is found now."""
    set_library_defaults()
    import_module("numpy")
    import_module("torch")
    import_module("harness.weights.late").compile_late()
    settings()
    sources_digest(*RESULT_ROOMS)


def load_before_phases() -> None:
    """Load all that a run needs up to its first phase."""
    load_torch()
    for name in BEFORE_PHASES:
        import_module(name)
