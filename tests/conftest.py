"""Fixtures that several rooms share."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest

# For BOFT torch imports setuptools, which refuses to be imported after distutils.
with suppress(ImportError):
    import setuptools  # noqa: F401

# A shell's background jobs ignore Ctrl-C, and what they start inherits it; tests send it.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
# A hub of a test's own may be a thread of this process, which a busy machine stops for long.
os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "600")
os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "600")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real OASST files and lm-eval data sets, beside the checkout."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real test data is not at {folder}")
    return folder
