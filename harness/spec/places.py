"""Places: the user's folder for what can be fetched or computed again."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

ENVIRONMENT_VARIABLE = "FINETUNE_HARNESS_CACHE"


def cache_folder() -> Path:
    """``$FINETUNE_HARNESS_CACHE``, or the platform's cache folder of this project."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(chosen) if chosen else user_cache_path("finetune-harness")
