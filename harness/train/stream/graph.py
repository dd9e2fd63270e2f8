"""Graph: a micro-batch recorded once as a CUDA graph and replayed, where launches would bind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.train.batch import StreamBatch, StreamSize
from harness.train.stream.decoder import Decoder

if TYPE_CHECKING:
    from harness.corpus.sequences import Row

# Above this many tokens kernels take longer than their launches.
LAUNCH_BOUND_TOKENS = 2**14
# Filling every micro-batch to one shape may cost this share of tokens at most.
AFFORDABLE_FILL = 0.05
# Recording takes about as long as a few steps.
WORTHWHILE_STEPS = 8


def common_size(micro_batches: Sequence[Sequence[Row]]) -> StreamSize | None:
    """One shape for all micro-batches, or None where a graph would not pay."""
    sizes = [StreamSize.of(rows) for rows in micro_batches]
    if len(sizes) < WORTHWHILE_STEPS:
        return None
    whole = sizes[0]
    for size in sizes:
        whole = whole.covering(size)
    real = sum(size.tokens for size in sizes) / len(sizes)
    if whole.tokens > LAUNCH_BOUND_TOKENS or whole.tokens > real * (1 + AFFORDABLE_FILL):
        return None
    fillings = -(-(whole.tokens - min(size.tokens for size in sizes)) // whole.longest)
    return replace(whole, conversations=whole.conversations + fillings)


class RecordedStep:
    """``decoder.accumulate`` for batches of one shape."""

    def __init__(self, decoder: Decoder, batch: StreamBatch, total: Tensor) -> None:
        """Record with ``batch`` as the example; losses are added to ``total``.

        Gradients of the example are added too: zero them afterwards.
        """
        self._decoder = decoder
        self._batch = batch
        self._stream = decoder.stream(batch)
        self._scale = torch.ones((), device=batch.ids.device)
        self._graph = torch.cuda.CUDAGraph()
        capture: Any = torch.cuda.graph(self._graph)
        with torch.no_grad(), capture:
            total.add_(decoder.accumulate(self._batch, self._stream, self._scale))

    def replay(self, batch: StreamBatch, scale: Tensor) -> None:
        """Do the same with the contents of ``batch``."""
        for name, tensor in batch.tensors.items():
            self._batch.tensors[name].copy_(tensor)
        stream = self._decoder.stream(self._batch)
        self._stream.cos.copy_(stream.cos)
        self._stream.sin.copy_(stream.sin)
        self._scale.copy_(scale)
        self._graph.replay()
