"""Feed: micro-batches on their way through the device, as CUDA graphs where that pays."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.records.events import Progress
from harness.train.graph import WORTHWHILE, MicroBatchTimes, Recording, choose_shapes
from harness.train.micro_step import Batch, MicroStep, Size

# A micro-batch that takes this many times its launches is not held up by them.
DEVICE_BOUND = 2.5


class MicroBatches(Protocol):
    """What is fed: the rows of every step, a list for each forward pass.

    A row has ``input_ids``, and the step's own ``batch`` makes tensors of a list of them.
    """

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""

    @property
    def pad_id(self) -> int:
        """What micro-batches are filled up with."""

    def micro_batches(self, step: int) -> Sequence[Sequence[Any]]:
        """Rows of optimizer step ``step`` (from 0), a list for each forward pass."""


@dataclass(frozen=True)
class _Prepared:
    """A micro-batch on the device, and the recording of its shape, if any."""

    batch: Batch
    recorded: Recording | None


@dataclass
class Feed:
    """Feeds ``source`` to ``micro_step``; the summed losses of a step are in ``total``."""

    source: MicroBatches
    micro_step: MicroStep
    progress: Progress
    total: Tensor
    shapes: dict[int, list[Size | None]] = field(default_factory=dict)
    recorded: dict[Size, Recording] = field(default_factory=dict)
    ready: dict[int, list[_Prepared]] = field(default_factory=dict)

    def warm_up(self, done: int) -> float:
        """Compile the kernels and record micro-batches where that pays. Returns seconds.

        ``done`` steps are over. Gradients are made on the way: zero them afterwards.
        """
        started = time.perf_counter()
        self.micro_step.refresh()
        remaining = range(done, self.source.steps)
        micros = {step: self.source.micro_batches(step) for step in remaining}
        everything = [rows for step in remaining for rows in micros[step]]
        if everything:
            self.micro_step.reserve(
                max(self.micro_step.size_of(rows).tokens for rows in everything)
            )
            self._launch(everything[0][:1])
        if len(everything) >= WORTHWHILE:
            try:
                shapes = self._recorded_shapes(everything)
            except self.micro_step.unrecordable as error:
                self.progress.note(f"steps are not recorded as CUDA graphs: {error}")
                shapes = [None] * len(everything)
            rest = iter(shapes)
            self.shapes = {step: [next(rest) for _ in micros[step]] for step in remaining}
        self.total.zero_()
        torch.cuda.synchronize()
        return time.perf_counter() - started

    def accumulate(
        self, step: int, scale: Tensor, complete_from: Callable[[int], None] | None = None
    ) -> None:
        """Add ``scale`` times the gradients of a step; its summed losses are then in ``total``.

        ``complete_from`` is told by the last micro-batch how far joined gradients are complete.
        """
        self.total.zero_()
        batches = self._batches(step)
        for index, one in enumerate(batches, start=1):
            if one.recorded is not None:
                one.recorded.replay(one.batch, scale)
                continue
            stream = self.micro_step.stream(one.batch)
            told = complete_from if index == len(batches) else None
            self.total += self.micro_step.accumulate(one.batch, stream, scale, told)

    def prepare(self, step: int) -> None:
        """Put the micro-batches of ``step`` on the device ahead, if there is such a step."""
        self.ready = {step: self._batches(step)} if step < self.source.steps else {}

    def _recorded_shapes(self, micro_batches: list[Sequence[Any]]) -> list[Size | None]:
        """The shape of each micro-batch, every one of them recorded."""
        sizes = [self.micro_step.size_of(rows) for rows in micro_batches]
        shapes = choose_shapes(sizes, self._pace(micro_batches))
        self._record(micro_batches, shapes)
        return shapes

    def _launch(self, rows: Sequence[Any]) -> tuple[float, float]:
        """Run one micro-batch. Returns seconds until all was launched and until all was done."""
        batch = self._on_device(self.micro_step.batch(rows))
        torch.cuda.synchronize()
        started = time.perf_counter()
        self.micro_step.accumulate(
            batch, self.micro_step.stream(batch), torch.ones_like(self.total)
        )
        launched = time.perf_counter() - started
        torch.cuda.synchronize()
        return launched, time.perf_counter() - started

    def _pace(self, micro_batches: list[Sequence[Any]]) -> MicroBatchTimes:
        """Measured: launches on the shortest row, where the device has little to do.

        A token's time is read off the largest micro-batch, recorded unless the device is plainly
        what takes the time: where launches do, they would hide how little a token costs.
        """
        shortest = min(micro_batches[0], key=lambda row: len(row.input_ids))
        launch = min(self._launch([shortest])[0] for _ in range(2))
        largest = max(micro_batches, key=lambda rows: self.micro_step.size_of(rows).tokens)
        done = min(self._launch(largest)[1] for _ in range(2))
        if done < DEVICE_BOUND * launch:
            batch = self._on_device(self.micro_step.batch(largest))
            torch.cuda.empty_cache()
            recorded = Recording(self.micro_step, batch, self.total, None)
            done = min(_seconds(recorded, batch, self.total) for _ in range(2))
        return MicroBatchTimes(launch, done / self.micro_step.size_of(largest).tokens)

    def _record(self, micro_batches: list[Sequence[Any]], shapes: list[Size | None]) -> None:
        """A recording for every shape, with one of its micro-batches as the example."""
        examples = {shape: rows for shape, rows in zip(shapes, micro_batches, strict=True) if shape}
        self.micro_step.reserve(max((shape.tokens for shape in examples), default=0))
        torch.cuda.empty_cache()
        last: Recording | None = None
        for shape in sorted(examples, key=lambda one: -one.tokens):
            example = self.micro_step.batch(examples[shape], shape, self.source.pad_id)
            last = Recording(self.micro_step, self._on_device(example), self.total, last)
            self.recorded[shape] = last

    def _batches(self, step: int) -> list[_Prepared]:
        """The micro-batches of a step, on the device (prepared ahead if possible)."""
        if step in self.ready:
            return self.ready.pop(step)
        micros = self.source.micro_batches(step)
        return [
            _Prepared(
                self._on_device(self.micro_step.batch(rows, shape, self.source.pad_id)),
                self.recorded[shape] if shape else None,
            )
            for rows, shape in zip(micros, self.shapes.get(step, [None] * len(micros)), strict=True)
        ]

    def _on_device(self, batch: Any) -> Any:
        if not self.total.is_cuda:
            return batch
        moved = {
            name: tensor.pin_memory().to(self.total.device, non_blocking=True)
            for name, tensor in batch.tensors.items()
        }
        return replace(batch, **moved)


def _seconds(recorded: Recording, batch: Batch, scale: Tensor) -> float:
    """Time of one replay."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    recorded.replay(batch, torch.ones_like(scale))
    torch.cuda.synchronize()
    return time.perf_counter() - started
