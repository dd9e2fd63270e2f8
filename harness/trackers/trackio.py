"""Trackio: runs in a local store, or on the server that trackio's own variables name."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Mapping
from contextvars import copy_context
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.spec.plan import Plan
from harness.trackers.tracker import PROJECT, Axis, Tracker, settings_of, title_of

OLDEST = (0, 43)  # keeps artifacts; the versions before it that were tried do not
STORE = "TRACKIO_DIR"


class Trackio(Tracker):
    """One run of trackio for each run, grouped by suite. Its own variables (TRACKIO_…) hold."""

    def __init__(self, folder: Path) -> None:
        """Keep the local store in ``folder``, unless TRACKIO_DIR names one.

        Raises:
            UserError: the installed version is too old.
        """
        super().__init__(folder)
        found = version("trackio")
        if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < OLDEST:
            raise UserError(
                f"trackio {found} is too old",
                where="--track trackio",
                expected=f"{OLDEST[0]}.{OLDEST[1]} or newer",
                hint="pip install --upgrade trackio",
            )
        # Read when trackio is imported, and by the command that shows the runs.
        os.environ.setdefault(STORE, str(folder.absolute()))
        self._runs: dict[str, Any] = {}

    @property
    def place(self) -> str:
        """The command that shows them."""
        return f"{STORE}={os.environ[STORE]} trackio show --project {_project()}"

    def start(self, plan: Plan) -> None:
        """Open a run with the plan as its settings."""
        self._runs[plan.run_name] = _open(plan.suite, title_of(plan), settings_of(plan))

    def log(self, plan: Plan, axis: Axis, at: int, numbers: Mapping[str, float]) -> None:
        """Append to the run's metrics; memory is among the metrics of the system, by time."""
        run = self._runs[plan.run_name]
        if axis == "step":
            run.log(dict(numbers), step=at)
        else:
            run.log_system(dict(numbers))

    def finish(self, plan: Plan, summary: Mapping[str, float], status: str) -> None:
        """Append scores and costs, and close the run."""
        run = self._runs.pop(plan.run_name)
        run.log({**summary, "status": status})
        _quietly(run.finish)

    def keep_report(self, suite: str, pages: list[Path]) -> None:
        """The report's pages are an artifact of a run of their own."""
        import trackio

        run = _open(suite, f"report of {suite}", {})
        artifact = trackio.Artifact(re.sub(r"[^A-Za-z0-9._-]+", "-", f"report-{suite}"), "report")
        for page in pages:
            artifact.add_file(str(page))
        _quietly(lambda: run.log_artifact(artifact))
        _quietly(run.finish)

    def end(self) -> None:
        """Close what was cut short."""
        super().end()
        for run in self._runs.values():
            _quietly(run.finish)
        self._runs.clear()


def _project() -> str:
    return os.environ.get("TRACKIO_PROJECT") or PROJECT


def _open(suite: str, name: str, settings: dict[str, Any]) -> Any:
    """A run of its own: trackio would end the one before, which may still go on."""
    import trackio

    def begin() -> Any:
        return trackio.init(
            project=_project(),
            name=name,
            group=suite,
            config=settings,
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    return _quietly(lambda: copy_context().run(begin))


def _quietly(call: Callable[[], Any]) -> Any:
    """What trackio prints would stand in the middle of the display."""
    with contextlib.redirect_stdout(io.StringIO()):
        return call()
