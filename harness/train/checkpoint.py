"""Checkpoint: everything that training needs to go on as if it had never stopped."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, BinaryIO

from harness import numbers
from harness.errors import StorageError
from harness.records.events import Progress
from harness.spec.storage import free_bytes
from harness.train.random_state import restore_random_state, undisturbed_random_state

if TYPE_CHECKING:
    from torch import nn

    from harness.records.record import LossPoint
    from harness.records.validation import ValidationPoint
    from harness.train.job import TrainJob

# What torch.load and the types raise for files that are cut or of another make.
UNREADABLE = (
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    UnpicklingError,
    ValueError,
)
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class TrainingState:
    """A point between two optimizer steps. ``fingerprint`` is the plan's.

    ``best`` are the weights of the lowest validation loss, where those are kept.
    """

    fingerprint: str
    points: tuple[LossPoint, ...]
    weights: dict[str, Any]
    optimizer: dict[str, Any]
    rates: dict[str, Any]
    scaler: dict[str, Any] | None = None
    random: dict[str, Any] = field(default_factory=dict)
    allocation: dict[str, Any] = field(default_factory=dict)
    validation: tuple[ValidationPoint, ...] = ()
    best: dict[str, Any] = field(default_factory=dict)
    best_ranks: dict[str, Any] = field(default_factory=dict)


class CheckpointWriter:
    """Writes states when they are due: seldom enough to cost at most a twentieth of the time.

    A full fine-tuning's state can be larger than what the disk, or a quota, has left. That is no
    reason to stop, so it is said and no state is written: such a run, cut short, goes on from an
    earlier state or starts training anew.
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
        needed, free = state_bytes(state), free_bytes(self._folder)
        if needed > free:
            self._progress.note(
                f"no checkpoint: it takes {numbers.size(needed)} of disk and "
                f"{numbers.size(free)} are free"
            )
            self._folder = None
            return
        started = time.perf_counter()
        try:
            save_state(self._folder, state)
        except StorageError as error:
            self._progress.note(f"no checkpoint from here on: {error.what}")
            self._folder = None
            return
        self._last = time.perf_counter()
        self._interval = max(self._interval, 20 * (self._last - started))


def state_bytes(state: TrainingState) -> int:
    """Bytes of the tensors of ``state``, which is nearly all that a file of it takes."""
    import torch
    from torch.utils._pytree import tree_leaves

    leaves = tree_leaves(
        (state.weights, state.best, state.optimizer, state.random, state.allocation)
    )
    return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))


def trainable_weights(model: nn.Module) -> dict[str, Any]:
    """The trainable parameters by name, as they are (not copied)."""
    from harness.weights.sharded import plain_name

    return {
        plain_name(name): parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def restore_weights(model: nn.Module, weights: dict[str, Any]) -> None:
    """Write saved trainable parameters back, in place; of spread ones this device's part."""
    import torch

    from harness.weights.trained_shards import own_part

    with torch.no_grad():
        for name, parameter in trainable_weights(model).items():
            own_part(parameter).copy_(weights[name])


def save_state(folder: Path, state: TrainingState) -> None:
    """Write ``state`` whole or not at all, in the place of an earlier one.

    The file's name holds the SHA-256 of its bytes, taken while they are written.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    import torch

    part = folder / f"training.{os.getpid()}.part"
    data = {name: getattr(state, name) for name in TrainingState.__dataclass_fields__}
    for name in ("points", "validation"):
        data[name] = [point.model_dump() for point in data[name]]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            hashed: Any = _Hashed(file)
            torch.save(data, hashed)
            file.flush()
            os.fsync(file.fileno())
        earlier = _files(folder)
        path = part.replace(folder / f"training-{hashed.digest.hexdigest()}.pt")
        for file_ in earlier:
            if file_ != path:
                file_.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError on a full disk
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise StorageError(f"cannot write the checkpoint: {error}", where=folder) from error


class _Hashed:
    """A file open for writing that takes the digest of what goes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("training-*.pt"))


def saved_state(job: TrainJob, progress: Progress) -> TrainingState | None:
    """What an earlier attempt at ``job`` has left, or None; see :func:`load_state`."""
    from torch.serialization import safe_globals

    from harness.train.optimizer import kept_classes

    if job.checkpoint is None:
        return None
    with safe_globals([*kept_classes(job.plan.training.optimizer)]):
        return load_state(job.checkpoint, job.plan.fingerprint, job.model, progress)


def load_state(
    folder: Path, fingerprint: str, model: nn.Module, progress: Progress
) -> TrainingState | None:
    """The furthest state saved by a run of the same plan, or None where no file can be used.

    A file that has changed since it was written, or does not fit ``model``, costs only the time
    to train again: that is said, and the next state takes its place.
    """
    found: TrainingState | None = None
    refused: list[str] = []
    for path in _files(folder):
        try:
            state = _read(path)
            if state.fingerprint != fingerprint:
                continue
            _check_fit(state, model)
        except UNREADABLE as error:
            if "allocat" in str(error):  # it may fit the next time
                raise
            reason = str(error).partition("\n")[0] or type(error).__name__
            refused.append(reason)
            continue
        if found is None or len(state.points) > len(found.points):
            found = state
    then = "starts anew" if found is None else f"goes on from step {len(found.points)} of another"
    for reason in refused:
        progress.note(f"a checkpoint is not used, and training {then}: {reason}")
    return found


def _read(path: Path) -> TrainingState:
    """Raises one of ``UNREADABLE`` where the file is not what was written."""
    import torch

    from harness.records.record import LossPoint
    from harness.records.validation import ValidationPoint

    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if path.name != f"training-{digest}.pt":
        raise ValueError("its file has changed since it was written")
    # plain data only: a run folder from someone else must not be able to run code
    data = torch.load(path, map_location="cpu", weights_only=True)
    data["points"] = tuple(LossPoint.model_validate(point) for point in data["points"])
    validated = data.get("validation", ())
    data["validation"] = tuple(ValidationPoint.model_validate(point) for point in validated)
    return TrainingState(**data)


def _check_fit(state: TrainingState, model: nn.Module) -> None:
    """Raises one of ``UNREADABLE`` where the state is not one of this model's training."""
    weights = trainable_weights(model)
    _check_weights(state.weights, weights)
    if state.best:
        _check_weights(state.best, weights)
    _check_moments(state.optimizer, weights)
    steps = [point.step for point in state.points]
    if not steps or steps != list(range(1, len(steps) + 1)):
        raise ValueError("its steps are not counted from 1")
    with undisturbed_random_state():
        restore_random_state(state.random)


def _check_weights(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in sorted(wanted.keys() ^ found.keys()):
        raise ValueError(f"it {'lacks' if name in wanted else 'has another weight,'} {name}")
    for name, weight in wanted.items():
        _check_alike(name, found[name], weight)


def _check_moments(optimizer: dict[str, Any], weights: dict[str, Any]) -> None:
    """An optimizer takes moments of any shape, and fails at the first step."""
    import torch

    groups = optimizer["param_groups"]
    numbers = [number for group in groups for number in group["params"]]
    if any(isinstance(key, str) for key in optimizer["state"]):  # LoRA-FA's, by names of layers
        return
    if len(numbers) != len(weights):
        raise ValueError(f"its optimizer is of {len(numbers)} weights, not {len(weights)}")
    if len(groups) > 1:  # their order is not the model's
        return
    for number, (name, weight) in zip(numbers, weights.items(), strict=True):
        for key, value in optimizer["state"].get(number, {}).items():
            if key not in MOMENTS or not isinstance(value, torch.Tensor):
                continue
            if value.shape != weight.shape:
                raise ValueError(f"{key} of {name} has shape {tuple(value.shape)}")


def _check_alike(name: str, found: Any, wanted: Any) -> None:
    if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
        raise ValueError(
            f"{name} is {found.dtype} of shape {tuple(found.shape)}, "
            f"not {wanted.dtype} of shape {tuple(wanted.shape)}"
        )
