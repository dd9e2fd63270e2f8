"""Steps: a few tokens for all rows at a time; on a GPU a step is one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from harness.score.body import TreeBody
from harness.score.rows import SHORT, Rows

LEAST_ROWS = 4  # a graph of fewer rows is not faster


class Steps:
    """Takes steps of rows.

    Attributes:
        at_once: steps after which tokens are looked at; a row that ends before has gone too far.
    """

    def __init__(self, body: TreeBody, rows: Rows) -> None:
        """See whether steps can be recorded."""
        self._rows = rows
        self._on_gpu = rows.lengths.is_cuda
        self._records = self._on_gpu and body.is_recordable
        self._graphs: dict[int, Callable[[], None]] = {}
        self.at_once = SHORT // 2 if self._on_gpu else SHORT // 4

    def take(self, count: int, steps: int, longest: int) -> list[list[int]]:
        """The next ``steps`` tokens of the first ``count`` rows; the longest has ``longest``."""
        rows = self._rows
        rows.begin_steps(count)
        if not self._records:
            rows.count, rows.width = count, min(longest + steps, rows.room)
            for _ in range(steps):
                rows.step()
        else:
            rows.count = self._enough(count)
            for _ in range(steps):
                self._graphs.get(rows.count, self._recorded_soon)()
        found: list[list[int]] = rows.recent[:count, :steps].tolist()
        return found

    def _enough(self, count: int) -> int:
        """The smallest number of rows with a graph of its own that is enough."""
        size = self._rows.number
        while size // 2 >= max(count, LEAST_ROWS):
            size //= 2
        return size

    def _recorded_soon(self) -> None:
        """A step that makes libraries ready, and then the graph of those that follow."""
        self._rows.step()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        capture: Any = torch.cuda.graph(graph)
        with capture:
            self._rows.step()
        self._graphs[self._rows.count] = graph.replay
