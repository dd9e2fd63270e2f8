"""Recorded: forward passes of a shape that recurs, as one CUDA graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from harness.quantize.scheme import scheme_of
from harness.weights.masks import NeedlessMasks
from harness.weights.sharded import is_sharded

# Rotary embeddings that depend on positions alone; others look at the longest and adapt.
FIXED_ROPES = ("default", "linear", "llama3", "yarn")
# The first pass of a shape makes libraries ready, the second is launched into a graph, and that
# takes about as long as another: the rest has to be worth it.
WORTHWHILE = 6


def is_recordable(model: Any) -> bool:
    """Whether all that a forward pass does depends on shapes only, never on values."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    if not getattr(base, "_can_compile_fullgraph", False):
        return False
    if is_sharded(model):  # devices would have to wait for each other inside a graph
        return False
    return all(_depends_on_shapes_only(module) for module in model.modules())


def _depends_on_shapes_only(module: Any) -> bool:
    if getattr(module, "rope_type", "default") not in FIXED_ROPES:
        return False
    scheme = scheme_of(module)
    return scheme is None or scheme.plain_product


class RecordedPasses:
    """Passes over token ids (rows, tokens) on a GPU, recorded where their shape recurs.

    A small model computes a pass in less time than the host takes to start its kernels one by one.
    A graph holds the memory of a pass, so only the latest is kept: rows come sorted by length.

    Attributes:
        replayed: passes that were.
    """

    def __init__(self, attention: str) -> None:
        """The model's attention goes by transformers' name."""
        self._attention = attention
        self._recurring: set[tuple[int, ...]] = set()
        self._ready: dict[tuple[int, ...], NeedlessMasks] = {}
        self._recorded: dict[tuple[int, ...], _Recorded] = {}
        self.replayed = 0

    @contextmanager
    def expecting(self, shapes: Iterable[tuple[int, ...]]) -> Iterator[None]:
        """While this is open, passes of those of the shapes that recur are recorded."""
        self._recurring = {shape for shape, count in Counter(shapes).items() if count >= WORTHWHILE}
        try:
            yield
        finally:
            self._recurring = set()
            self._ready.clear()
            self._recorded.clear()

    def run(self, launch: Callable[[Tensor], Tensor], ids: Tensor) -> Tensor:
        """The states that ``launch`` gives of ids; the next pass of this shape may overwrite them.

        ``launch`` is not kept, since it holds the model.
        """
        shape = tuple(ids.shape)
        if shape in self._recurring and shape not in self._ready:
            masks = self._ready[shape] = NeedlessMasks(self._attention)
            with masks.noted():
                return launch(ids)
        if shape in self._recurring:
            self._record(shape, launch, ids)
        if shape not in self._recorded:
            return launch(ids)
        self.replayed += 1
        return self._recorded[shape].replay(ids)

    def _record(
        self, shape: tuple[int, ...], launch: Callable[[Tensor], Tensor], ids: Tensor
    ) -> None:
        """Record a shape, once; a model that cannot be recorded is not asked again."""
        self._recurring.discard(shape)
        self._recorded.clear()
        try:
            with self._ready[shape].left_out():
                self._recorded[shape] = _Recorded(launch, ids)
        except RuntimeError:  # it asks the device something, or memory is short
            self._recurring.clear()


class _Recorded:
    """One pass as a graph, with the ids that it reads and the states that it writes."""

    def __init__(self, launch: Callable[[Tensor], Tensor], ids: Tensor) -> None:
        self._ids = ids.clone()
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        capture: Any = torch.cuda.graph(self._graph)
        # a recording that fails leaves its own stream behind
        with torch.cuda.stream(torch.cuda.current_stream()), capture:
            self._states = launch(self._ids)

    def replay(self, ids: Tensor) -> Tensor:
        self._ids.copy_(ids)
        self._graph.replay()
        return self._states
