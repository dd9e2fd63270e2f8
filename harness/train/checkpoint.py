"""Checkpoint: everything that training needs to go on as if it had never stopped."""

from __future__ import annotations

import os
import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from harness.errors import StorageError
from harness.records.events import Progress

if TYPE_CHECKING:
    from torch import nn

    from harness.records.record import LossPoint

FILE_NAME = "training.pt"
# What torch.load and the types raise for files that are cut or of another make.
UNREADABLE = (OSError, RuntimeError, EOFError, UnpicklingError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class TrainingState:
    """A point between two optimizer steps. ``fingerprint`` is the plan's."""

    fingerprint: str
    points: tuple[LossPoint, ...]
    weights: dict[str, Any]
    optimizer: dict[str, Any]
    rates: dict[str, Any]
    scaler: dict[str, Any] | None = None
    random: dict[str, Any] = field(default_factory=dict)


class CheckpointWriter:
    """Writes states when they are due: seldom enough to cost at most a twentieth of the time.

    A full fine-tuning's state can be larger than what the disk has left. That is no reason to
    stop, so it is said and no state is written: such a run, cut short, starts training anew.
    """

    def __init__(self, folder: Path | None, seconds: float, progress: Progress) -> None:
        """Write below ``folder`` (nowhere if None), at least ``seconds`` apart."""
        self._folder = folder
        self._interval = seconds
        self._progress = progress
        self._last = time.perf_counter()

    def due(self, *, finished: bool) -> bool:
        """Whether to write now: after the last step, or when the interval has passed."""
        late = time.perf_counter() - self._last >= self._interval
        return self._folder is not None and (finished or late)

    def write(self, state: TrainingState) -> None:
        """Write ``state`` and put off the next by twenty times what this one cost."""
        if self._folder is None:
            return
        needed, free = state_bytes(state), _free_bytes(self._folder)
        if needed > free:
            self._progress.note(
                f"no checkpoint: it takes {needed / 2**20:,.1f} MiB of disk and "
                f"{free / 2**20:,.1f} MiB are free"
            )
            self._folder = None
            return
        started = time.perf_counter()
        try:
            save_state(self._folder, state)
        except StorageError as error:  # a quota or a limit on file sizes, which no disk tells of
            self._progress.note(f"no checkpoint: {error.what}")
            self._folder = None
            return
        self._last = time.perf_counter()
        self._interval = max(self._interval, 20 * (self._last - started))


def state_bytes(state: TrainingState) -> int:
    """Bytes of the tensors of ``state``, which is nearly all that a file of it takes."""
    import torch
    from torch.utils._pytree import tree_leaves

    leaves = tree_leaves((state.weights, state.optimizer, state.random))
    return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))


def _free_bytes(folder: Path) -> int:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def trainable_weights(model: nn.Module) -> dict[str, Any]:
    """The trainable parameters by name, as they are (not copied)."""
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def restore_weights(model: nn.Module, weights: dict[str, Any]) -> None:
    """Write saved trainable parameters back, in place."""
    import torch

    with torch.no_grad():
        for name, parameter in trainable_weights(model).items():
            parameter.copy_(weights[name])


def random_state() -> dict[str, Any]:
    """States of the generators that training may draw from."""
    import numpy as np
    import torch

    numpy_state: Any = np.random.get_state()
    name, key, *rest = numpy_state
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(key.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the generators back."""
    import numpy as np
    import torch

    random.setstate(state["python"])
    name, key, *rest = state["numpy"]
    np.random.set_state((name, key.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def save_state(folder: Path, state: TrainingState) -> None:
    """Write ``state`` whole or not at all.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    import torch

    path = folder / FILE_NAME
    part = path.with_suffix(f".{os.getpid()}.part")
    data = {name: getattr(state, name) for name in TrainingState.__dataclass_fields__}
    data["points"] = [point.model_dump() for point in state.points]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save(data, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError on a full disk
        part.unlink(missing_ok=True)
        raise StorageError(f"cannot write the checkpoint: {error}", where=path) from error


def load_state(folder: Path, fingerprint: str) -> TrainingState | None:
    """The state saved by a run of the same plan, or None (none there, another plan's, unreadable).

    An unreadable file costs only the time to train again, so it is not an error.
    """
    import torch

    from harness.records.record import LossPoint

    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        # plain data only: a run folder from someone else must not be able to run code
        data = torch.load(path, map_location="cpu", weights_only=True)
        data["points"] = tuple(LossPoint.model_validate(point) for point in data["points"])
        state = TrainingState(**data)
    except UNREADABLE:
        return None
    return state if state.fingerprint == fingerprint else None
