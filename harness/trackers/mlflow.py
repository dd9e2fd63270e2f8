"""MLflow: runs on the server that MLFLOW_TRACKING_URI names, or in a local store."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.spec.plan import Plan
from harness.trackers.tracker import PROJECT, Axis, Tracker, flat, settings_of, title_of

LONGEST_VALUE = 6000  # of a parameter, by MLflow's limit
NOT_ALLOWED = re.compile(r"[^\w./ :-]")  # in names of metrics and parameters


class MLflow(Tracker):
    """One MLflow run for each run, tagged by suite."""

    def __init__(self, folder: Path) -> None:
        """Keep the local store below ``folder``."""
        super().__init__(folder)
        self._client: Any = None
        self._runs: dict[str, str] = {}

    @property
    def place(self) -> str:
        """The command that shows them, or the server."""
        uri = self._uri()
        return (
            uri
            if "://" in uri and not uri.startswith("sqlite")
            else (f"mlflow ui --backend-store-uri {uri}")
        )

    def start(self, plan: Plan) -> None:
        """Create a run with the plan as its parameters."""
        run = self._create(title_of(plan), plan.suite)
        for key, value in flat(settings_of(plan)).items():
            self._client.log_param(run, NOT_ALLOWED.sub("_", key), value[:LONGEST_VALUE])
        self._runs[plan.run_name] = run

    def log(self, plan: Plan, axis: Axis, at: int, numbers: Mapping[str, float]) -> None:
        """Append metrics."""
        del axis  # every metric has an axis of its own
        for name, value in numbers.items():
            run = self._runs[plan.run_name]
            self._client.log_metric(run, NOT_ALLOWED.sub("_", name), value, step=at)

    def finish(self, plan: Plan, summary: Mapping[str, float], status: str) -> None:
        """Append scores and costs, and end the run."""
        run = self._runs.pop(plan.run_name)
        for name, value in summary.items():
            self._client.log_metric(run, NOT_ALLOWED.sub("_", name), value)
        self._client.set_tag(run, "harness.status", status)
        self._client.set_terminated(run, "FINISHED" if status == "ok" else "FAILED")

    def keep_report(self, suite: str, pages: list[Path]) -> None:
        """The report's pages are artifacts of a run of their own."""
        run = self._create(f"report of {suite}", suite)
        for page in pages:
            self._client.log_artifact(run, str(page))
        self._client.set_terminated(run)

    def end(self) -> None:
        """End what was cut short."""
        super().end()
        for run in self._runs.values():
            self._client.set_terminated(run, "KILLED")
        self._runs.clear()

    def _create(self, name: str, suite: str) -> str:
        from mlflow import MlflowClient

        if self._client is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(self._uri())
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        found = self._client.get_experiment_by_name(project)
        number = (
            found.experiment_id
            if found
            else self._client.create_experiment(project, artifact_location=self._artifacts())
        )
        run = self._client.create_run(number, run_name=name, tags={"harness.suite": suite})
        return str(run.info.run_id)

    def _uri(self) -> str:
        local = self.folder.absolute() / "mlflow.db"
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{local}"

    def _artifacts(self) -> str | None:
        """Beside the local store; a server has a place of its own."""
        if os.environ.get("MLFLOW_TRACKING_URI"):
            return None
        return (self.folder.absolute() / "artifacts").as_uri()
