"""WandB: runs on Weights & Biases, or in its offline files (WANDB_MODE=offline)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.errors import UserError
from harness.spec.plan import Plan
from harness.trackers.tracker import PROJECT, Axis, Tracker, settings_of, title_of

LOCAL_MODES = ("offline", "disabled", "dryrun")
HOST = "https://api.wandb.ai"
KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")


class WandB(Tracker):
    """One run of W&B for each run, grouped by suite. Its own variables (WANDB_…) hold."""

    def __init__(self, folder: Path) -> None:
        """Keep its local files below ``folder``.

        Raises:
            UserError: nobody is logged in; W&B would ask in the middle of a run.
        """
        super().__init__(folder)
        self._runs: dict[str, Any] = {}
        if os.environ.get("WANDB_MODE", "") not in LOCAL_MODES and not _has_account():
            raise UserError(
                "W&B knows no account on this machine",
                where="--track wandb",
                hint="run `wandb login`, or set WANDB_MODE=offline",
            )

    def start(self, plan: Plan) -> None:
        """Open a run, with one axis for training and one for memory."""
        run = self._open(plan.suite, title_of(plan), settings_of(plan), "run")
        run.define_metric("step", hidden=True)
        run.define_metric("second", hidden=True)
        run.define_metric("train/*", step_metric="step")
        run.define_metric("memory/*", step_metric="second")
        self._runs[plan.run_name] = run

    def log(self, plan: Plan, axis: Axis, at: int, numbers: Mapping[str, float]) -> None:
        """Append to the run's history."""
        self._runs[plan.run_name].log({**numbers, axis: at})

    def finish(self, plan: Plan, summary: Mapping[str, float], status: str) -> None:
        """Set the run's summary and close it."""
        run = self._runs.pop(plan.run_name)
        run.summary.update({**summary, "status": status})
        run.finish(exit_code=0 if status == "ok" else 1)

    def keep_report(self, suite: str, pages: list[Path]) -> None:
        """The report's pages are an artifact of a run of their own."""
        import wandb

        run = self._open(suite, f"report of {suite}", {}, "report")
        artifact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", f"report-{suite}"), type="report")
        for page in pages:
            artifact.add_file(str(page))
        run.log_artifact(artifact)
        run.finish()

    def end(self) -> None:
        """Close what was cut short."""
        super().end()
        for run in self._runs.values():
            run.finish(exit_code=1)
        self._runs.clear()

    def _open(self, suite: str, name: str, settings: dict[str, Any], kind: str) -> Any:
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            group=suite,
            name=name,
            job_type=kind,
            config=settings,
            dir=str(self.folder),
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )


def _has_account() -> bool:
    """Whether `wandb login` was run here (it writes to netrc), or a variable holds a key."""
    if any(os.environ.get(name) for name in KEYS):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or HOST).hostname or ""
    try:
        return netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, NetrcParseError):
        return False
