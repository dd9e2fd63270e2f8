"""Choose: the trackers by name, those of installed packages included."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from harness.errors import UserError
from harness.spec.plugins import Plugins
from harness.trackers.tracker import Tracker

# Each of the harness's own needs the library that it is named after.
TRACKERS = Plugins(
    "tracker",
    "finetune_harness.trackers",
    {
        "tensorboard": "harness.trackers.tensorboard:TensorBoard",
        "wandb": "harness.trackers.wandb:WandB",
        "mlflow": "harness.trackers.mlflow:MLflow",
        "trackio": "harness.trackers.trackio:Trackio",
    },
)


def make_trackers(names: Iterable[str], reports: Path) -> list[Tracker]:
    """The trackers of these names, each once; nothing is written before a run begins.

    Raises:
        UnknownName: there is no such tracker.
        UserError: its library is not installed, or is not ready to be used.
    """
    return [_load(name)(reports / "trackers" / name) for name in dict.fromkeys(names)]


def _load(name: str) -> type[Tracker]:
    if name in TRACKERS.built_in and find_spec(name) is None:
        raise UserError(
            f"{name} is not installed",
            where=f"--track {name}",
            hint=f"pip install 'finetune-harness[{name}]'",
        )
    found: type[Tracker] = TRACKERS.load(name, "--track")
    return found
