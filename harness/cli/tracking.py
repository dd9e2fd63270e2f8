"""Tracking: the option that names trackers, and the report handed to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.app import complain, say

if TYPE_CHECKING:
    from harness.trackers.tracker import Tracker

TrackOption = Annotated[
    list[str],
    typer.Option(
        "--track",
        metavar="NAME",
        help="Also send losses, memory, scores and the report to tensorboard, wandb, mlflow or "
        "trackio; may be repeated.",
    ),
]


def keep_report(trackers: list[Tracker], suite: str, page: Path) -> None:
    """Hand the report's pages to all trackers, and say where to look."""
    from harness.trackers.tracker import PAGES

    pages = [found for name in PAGES if (found := page.parent / name).is_file()]
    for tracker in trackers:
        name = type(tracker).__name__
        try:
            tracker.keep_report(suite, pages)
        except Exception as error:  # noqa: BLE001 - the report is there, whatever a tracker does
            complain(f"{name} does not take the report: {type(error).__name__}: {error}")
        else:
            say(f"tracked by {name}: {tracker.place}")
