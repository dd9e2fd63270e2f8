"""Choose: the trackers by name, those of installed packages included."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from harness.errors import UnknownName, UserError
from harness.trackers.tracker import Tracker

# An installed package adds a tracker by an entry point of this group:
#     [project.entry-points."finetune_harness.trackers"]
#     my_tracker = "my_package.my_module:MyTracker"
GROUP = "finetune_harness.trackers"

# The registration of the harness's own trackers: the library each needs, and its class.
BUILT_IN = {
    "tensorboard": ("tensorboard", "harness.trackers.tensorboard:TensorBoard"),
    "wandb": ("wandb", "harness.trackers.wandb:WandB"),
    "mlflow": ("mlflow", "harness.trackers.mlflow:MLflow"),
}


def make_trackers(names: Iterable[str], reports: Path) -> list[Tracker]:
    """The trackers of these names, each once; nothing is written before a run begins.

    Raises:
        UnknownName: there is no such tracker.
        UserError: its library is not installed, or is not ready to be used.
    """
    return [_load(name)(reports / "trackers" / name) for name in dict.fromkeys(names)]


def _load(name: str) -> type[Tracker]:
    if name in BUILT_IN:
        library, place = BUILT_IN[name]
        if find_spec(library) is None:
            raise UserError(
                f"{library} is not installed",
                where=f"--track {name}",
                hint=f"pip install 'finetune-harness[{name}]'",
            )
        module, _, attribute = place.partition(":")
        found: type[Tracker] = getattr(import_module(module), attribute)
        return found
    outside = {point.name: point for point in entry_points(group=GROUP)}
    if name not in outside:
        raise UnknownName("tracker", name, [*BUILT_IN, *outside], where="--track")
    try:
        loaded: type[Tracker] = outside[name].load()
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"the package that brings the tracker {name} cannot be imported: {error}",
            where=f"entry point {name} = {outside[name].value} of group {GROUP}",
            hint="mend or remove that package",
        ) from error
    return loaded
