"""Forked: supervise for tests, in seconds a run instead of ten.

Runs are forked from one process that has loaded the libraries, and end bit for bit as runs in
fresh processes do, which test_warm holds. Tests of the process itself, of its memory or of its
environment use the harness's own supervise.
"""

from __future__ import annotations

import pytest

from harness.records.events import Hear
from harness.records.record import RunRecord
from harness.records.store import RunStore
from harness.runs import supervise as own
from harness.runs.options import DEFAULT_OPTIONS, RunOptions
from harness.runs.stop import Stop
from harness.spec.plan import Plan


def supervise(
    plan: Plan,
    store: RunStore,
    hear: Hear,
    options: RunOptions = DEFAULT_OPTIONS,
    stop: Stop | None = None,
) -> RunRecord:
    """As :func:`harness.runs.supervise.supervise`, but forked where that is possible."""
    warm = options.model_copy(update={"warm": True})
    return in_one_environment(plan, store, hear, warm, stop)


def in_one_environment(
    plan: Plan, store: RunStore, hear: Hear, options: RunOptions, stop: Stop | None
) -> RunRecord:
    """As :func:`harness.runs.supervise.supervise`, in the environment of all tests.

    Another environment asks for another process, and pytest writes the test's name there.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_CURRENT_TEST", raising=False)
        return own.supervise(plan, store, hear, options, stop)
