"""Graph: micro-batches recorded as CUDA graphs and replayed, where the host would hold them up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from harness.train.micro_step import Batch, MicroStep, Size

# A training of fewer micro-batches ends before a recording has paid for itself.
WORTHWHILE = 8
# Recording launches every kernel once, into a graph, and sends that to the device.
RECORDING_LAUNCHES = 2.0
# Even a host that is ahead holds the device up where a step begins: this share of its launches.
LAG = 0.1
# Every shape is a graph of its own; more than a few brought nothing.
MOST_SHAPES = 4


@dataclass(frozen=True)
class MicroBatchTimes:
    """What a micro-batch costs, in seconds: its launches on the host, each token on the device."""

    launch: float
    token: float

    def launched(self, size: Size) -> float:
        """Time of a micro-batch of ``size`` whose kernels the host launches one by one."""
        return max(self.launch, size.tokens * self.token) + LAG * self.launch

    def replayed(self, shape: Size) -> float:
        """Time of one that is filled up to ``shape`` and replayed."""
        return shape.tokens * self.token


def choose_shapes(sizes: Sequence[Size], pace: MicroBatchTimes) -> list[Size | None]:
    """The shape that each micro-batch is filled up to and recorded in; None: launched as it is.

    What counts is time: a filled token costs the device its time, a launch costs the host its
    own. Micro-batches of similar size share a shape, of which there are as many as pay.
    """
    everything: list[Size | None] = [None] * len(sizes)
    if len(sizes) < WORTHWHILE:
        return everything
    order = sorted(range(len(sizes)), key=lambda index: sizes[index].tokens)
    best, best_time = everything, sum(pace.launched(size) for size in sizes)
    for count in range(1, MOST_SHAPES + 1):
        chosen, time = list(everything), 0.0
        for start, end in _parts(len(order), count):
            members = order[start:end]
            shape, seconds = _shape_of([sizes[index] for index in members], pace)
            time += seconds
            for index in members:
                chosen[index] = shape
        if time < best_time:
            best, best_time = chosen, time
    return best


def _parts(length: int, count: int) -> list[tuple[int, int]]:
    edges = [length * part // count for part in range(count + 1)]
    return list(pairwise(edges))


def _shape_of(sizes: Sequence[Size], pace: MicroBatchTimes) -> tuple[Size | None, float]:
    """The shape for all of ``sizes``, or None where launching them is faster; and the time."""
    launched = sum(pace.launched(size) for size in sizes)
    whole = sizes[0]
    for size in sizes:
        whole = whole.covering(size)
    recording = RECORDING_LAUNCHES * pace.launch
    replayed = recording + len(sizes) * pace.replayed(whole)
    if launched <= replayed:
        return None, launched
    return whole.filled_from(min(size.tokens for size in sizes)), replayed


class Recording:
    """``step.accumulate`` for batches of one shape."""

    def __init__(
        self, step: MicroStep, batch: Batch, total: Tensor, beside: Recording | None
    ) -> None:
        """Record with ``batch`` as the example; losses are added to ``total``.

        Gradients of the example are added too: zero them afterwards. ``beside`` is one recorded
        earlier: no two are replayed at a time and none leaves anything behind, so they share
        memory. Record the largest first.
        """
        self._step = step
        self._batch = batch
        self._stream = step.stream(batch)
        self._scale = torch.ones_like(total)
        self._graph = torch.cuda.CUDAGraph()
        pool = None if beside is None else beside._graph.pool()  # noqa: SLF001 - one of its kind
        # other threads of this process may wait for other devices meanwhile
        apart = "thread_local"
        capture: Any = torch.cuda.graph(self._graph, pool=pool, capture_error_mode=apart)
        with torch.no_grad(), capture:
            total.add_(step.accumulate(self._batch, self._stream, self._scale))

    def replay(self, batch: Batch, scale: Tensor) -> None:
        """Do the same with the contents of ``batch``."""
        for name, tensor in batch.tensors.items():
            self._batch.tensors[name].copy_(tensor)
        self._step.refill(self._stream, self._batch)
        self._scale.copy_(scale)
        self._graph.replay()
