"""TensorBoard: runs as event files, one folder a run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.spec.plan import Plan
from harness.trackers.tracker import Axis, Tracker, flat, settings_of


class TensorBoard(Tracker):
    """Writes event files; a run that is tracked again replaces its own."""

    def __init__(self, folder: Path) -> None:
        """Keep the event files below ``folder``."""
        super().__init__(folder)
        self._writers: dict[str, Any] = {}

    @property
    def place(self) -> str:
        """The command that shows them."""
        return f"tensorboard --logdir {self.folder}"

    def start(self, plan: Plan) -> None:
        """Open a run's event file."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self.folder / plan.run_name
        shutil.rmtree(folder, ignore_errors=True)
        writer = self._writers[plan.run_name] = SummaryWriter(str(folder))
        rows = (f"| {key} | {value} |" for key, value in flat(settings_of(plan)).items())
        writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]))

    def log(self, plan: Plan, axis: Axis, at: int, numbers: Mapping[str, float]) -> None:
        """Append scalars."""
        del axis  # every tag has an axis of its own
        for name, value in numbers.items():
            self._writers[plan.run_name].add_scalar(name, value, at)
        self._writers[plan.run_name].flush()

    def finish(self, plan: Plan, summary: Mapping[str, float], status: str) -> None:
        """Append scores and costs, and close the file."""
        writer = self._writers.pop(plan.run_name)
        for name, value in summary.items():
            writer.add_scalar(name, value, 0)
        writer.add_text("status", status)
        writer.close()

    def keep_report(self, suite: str, pages: list[Path]) -> None:
        """The report's text stands beside the runs."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self.folder / suite / "report"
        shutil.rmtree(folder, ignore_errors=True)
        with SummaryWriter(str(folder)) as writer:
            for page in pages:
                if page.suffix == ".md":
                    writer.add_text(page.stem, page.read_text(encoding="utf-8"))

    def end(self) -> None:
        """Close what was cut short."""
        super().end()
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
