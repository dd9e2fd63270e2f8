"""Fixtures that several rooms share."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.runs.halting import sitecustomize

pytest_plugins = ["tests.chance"]

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


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a user or an earlier run has kept decides no test, and no test leaves anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def halting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Children can be halted at an event, and are waited for however slow the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        asked = tmp_path_factory.mktemp("halting") / "event.json"
        patch.setenv(sitecustomize.VARIABLE, str(asked))
        folder = str(Path(sitecustomize.__file__).parent)
        patch.setenv("PYTHONPATH", folder, prepend=os.pathsep)
        patch.setattr("harness.runs.warm_start.READY_SECONDS", 1800.0)
        patch.setattr("harness.runs.warm_start.REPLY_SECONDS", 1800.0)
        patch.setattr("harness.runs.process.GRACE_SECONDS", 600.0)
        patch.setattr("harness.runs.attempt.LEFTOVER_SECONDS", 600.0)
        yield


@pytest.fixture(autouse=True)
def nobody_is_halted(halting: None) -> Iterator[None]:
    """A moment that a test asked for and that never came halts no run of the next one."""
    yield
    Path(os.environ[sitecustomize.VARIABLE]).unlink(missing_ok=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real OASST files and lm-eval data sets, beside the checkout."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real test data is not at {folder}")
    return folder
