"""Stopwatch: where the seconds of a piece of work go, by the methods that it calls."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

SHOWN = 14  # kernels


def wait() -> None:
    """For the GPU, unless a graph is being recorded, when nothing may wait."""
    if torch.cuda.is_available() and not torch.cuda.is_current_stream_capturing():
        torch.cuda.synchronize()


class Stopwatch:
    """Seconds of each watched method, without those of watched methods inside."""

    def __init__(self, watched: Mapping[str, tuple[type, str]]) -> None:
        """Watch methods by names of one's own; each waits for the GPU before and after."""
        self._watched = watched
        self._seconds: dict[str, float] = defaultdict(float)
        self._calls: dict[str, int] = defaultdict(int)
        self._inside = [0.0]

    def account(self, work: Callable[[], Any]) -> dict[str, Any]:
        """Seconds and calls of one turn; ``elsewhere`` is what no watched method took."""
        self._seconds.clear()
        self._calls.clear()
        with ExitStack() as stack:
            for name, (owner, method) in self._watched.items():
                stack.enter_context(self._watching(name, owner, method))
            wait()
            start = time.perf_counter()
            work()
            wait()
            whole = time.perf_counter() - start
        found: dict[str, Any] = {
            name: [round(seconds, 4), self._calls[name]] for name, seconds in self._seconds.items()
        }
        elsewhere = round(whole - sum(self._seconds.values()), 4)
        return {"whole": round(whole, 4), **found, "elsewhere": [elsewhere, 1]}

    @contextmanager
    def _watching(self, name: str, owner: type, method: str) -> Iterator[None]:
        own = owner.__dict__.get(method)
        inner = getattr(owner, method)

        def outer(*arguments: Any, **settings: Any) -> Any:
            recording = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
            label = f"{name}, recorded" if recording else name
            wait()
            self._inside.append(0.0)
            start = time.perf_counter()
            try:
                return inner(*arguments, **settings)
            finally:
                wait()
                whole = time.perf_counter() - start
                self._seconds[label] += whole - self._inside.pop()
                self._calls[label] += 1
                self._inside[-1] += whole

        setattr(owner, method, outer)
        try:
            yield
        finally:
            setattr(owner, method, own) if own is not None else delattr(owner, method)


def kernels(work: Callable[[], Any]) -> dict[str, Any]:
    """The GPU's time of one turn, its kernels and the largest of them (on a CPU, operations)."""
    from torch.profiler import ProfilerActivity, profile

    kind = ProfilerActivity.CUDA if torch.cuda.is_available() else ProfilerActivity.CPU
    wait()
    start = time.perf_counter()
    with profile(activities=[kind]) as seen:
        work()
        wait()
    seconds = time.perf_counter() - start
    events = sorted(seen.key_averages(), key=lambda event: -event.self_device_time_total)
    return {
        "seconds_profiled": round(seconds, 3),
        "gpu_seconds": round(sum(event.self_device_time_total for event in events) / 1e6, 4),
        "launches": sum(event.count for event in events),
        "kernels": [
            [event.key[:70], event.count, round(event.self_device_time_total / 1e3, 2)]
            for event in events[:SHOWN]
        ],
    }
