"""Store: where the inputs of layers wait for the backward pass."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

from harness.train.stream.footprint import ON_DEVICE


class DeviceStore:
    """Keeps tensors where they are."""

    def __init__(self) -> None:
        self._held: dict[int, Tensor] = {}

    def reserve(self, count: int, like: Tensor) -> None:
        """Nothing is needed beforehand."""

    def open(self, count: int, like: Tensor) -> None:  # noqa: ARG002 - the other store's needs
        """Start with nothing held."""
        self._held = {}

    def put(self, index: int, x: Tensor) -> None:
        """Hold a tensor as number ``index``."""
        self._held[index] = x

    def take(self, index: int) -> Tensor:
        """Give it back and forget it."""
        return self._held.pop(index)


class HostStore(DeviceStore):
    """Moves tensors to page-locked host memory on a CUDA stream of its own.

    Computation waits for the copy before the last one, after which that tensor's memory may be
    used again: at most three tensors are on the device at a time, and those of the layer at hand.
    """

    def __init__(self, ahead: int) -> None:
        """``ahead``: how many tensors start on their way back while the last ones are used."""
        super().__init__()
        self._ahead = ahead
        self._host: list[Tensor] = []
        self._like = torch.empty(0)
        self._count = 0
        self._copies: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._leaving: deque[tuple[Tensor, Any]] = deque()
        self._arriving: dict[int, Any] = {}

    def reserve(self, count: int, like: Tensor) -> None:
        """Make room on the host for ``count`` tensors like ``like``.

        A tensor for each, since torch rounds page-locked memory up to a power of two.
        """
        kept = max(0, count - ON_DEVICE)
        if len(self._host) < kept or any(room.numel() < like.numel() for room in self._host):
            self._host = []
            for _ in range(kept):
                room = torch.empty(like.numel(), dtype=like.dtype, pin_memory=True)
                self._host.append(room)

    def open(self, count: int, like: Tensor) -> None:
        """Begin a micro-batch of ``count`` tensors like ``like``."""
        super().open(count, like)
        self._leaving.clear()
        self._count, self._like = count, torch.empty_like(like, device="meta")
        self.reserve(count, like)

    def _place(self, index: int) -> Tensor:
        return self._host[index][: self._like.numel()].view(self._like.shape)

    def put(self, index: int, x: Tensor) -> None:
        """Start the copy of ``x`` to the host; the last two stay on the device."""
        if index >= self._count - ON_DEVICE:
            super().put(index, x)
            return
        self._copies.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._copies):
            self._place(index).copy_(x, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._leaving.append((x, event))
        if len(self._leaving) > 2:
            torch.cuda.current_stream().wait_event(self._leaving.popleft()[1])

    def take(self, index: int) -> Tensor:
        """What was put there; those before it start on their way back."""
        while self._leaving:
            torch.cuda.current_stream().wait_event(self._leaving.popleft()[1])
        for ahead in range(index, index - self._ahead - 1, -1):
            if ahead >= 0 and ahead not in self._held:
                self._fetch(ahead)
        if index in self._arriving:
            torch.cuda.current_stream().wait_event(self._arriving.pop(index))
        return super().take(index)

    def _fetch(self, index: int) -> None:
        back = torch.empty_like(self._like, device="cuda")
        self._copies.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._copies):
            back.copy_(self._place(index), non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._held[index], self._arriving[index] = back, event
