"""Shares: what a device trains: all of the trained weights, or its part of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.parallel.ranks import Ranks
from harness.train.checkpoint import MOMENTS, TrainingState
from harness.train.shared import add_up_gradients
from harness.weights.trained_shards import cut, is_spread, own_part, whole


class Shares:
    """The trained weights of a model as the optimizer of one device takes them.

    Of a weight that is spread over the devices it is a parameter in the memory of this device's
    part, so that an optimizer that treats every number by itself needs to know nothing of others.
    """

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        """Take ``model`` while its weights are spread, as they are between two passes."""
        self._ranks = ranks
        self._weights = {
            name: weight for name, weight in model.named_parameters() if weight.requires_grad
        }
        self.parameters = [
            nn.Parameter(own_part(weight.detach())) if is_spread(weight) else weight
            for weight in self._weights.values()
        ]

    @property
    def spread(self) -> bool:
        """Whether any weight is spread."""
        return any(map(is_spread, self._weights.values()))

    def add_up(self, *also: Tensor) -> None:
        """Have every gradient, and ``also``, be its sum over all devices.

        Gradients of spread weights are that already; each device has its part.
        """
        together = []
        for own, weight in zip(self.parameters, self._weights.values(), strict=True):
            if not is_spread(weight):
                together.append(own)
                continue
            own.data = own_part(weight.detach())
            own.grad = None if weight.grad is None else own_part(weight.grad)
            weight.grad = None
        if together:
            add_up_gradients(together, self._ranks, *also)
        else:
            self._ranks.add_up(also)

    def clip(self, largest: float) -> Tensor:
        """Scale all gradients so that their norm is at most ``largest``; returns what it was.

        As torch's ``clip_grad_norm_``: the norm of the norms, each rounded to its gradient's dtype.
        """
        gradients = [own.grad for own in self.parameters if own.grad is not None]
        squares = torch.stack(
            [torch.linalg.vector_norm(one, dtype=torch.float32).square() for one in gradients]
        )
        parts = [
            weight
            for own, weight in zip(self.parameters, self._weights.values(), strict=True)
            if own.grad is not None
        ]
        spread = torch.tensor([is_spread(one) for one in parts], device=squares.device)
        of_all = squares * spread
        self._ranks.add_up([of_all])
        norms = torch.where(spread, of_all, squares).sqrt().to(gradients[0].dtype)
        total: Tensor = torch.linalg.vector_norm(norms)
        factor = (largest / (total + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, factor)
        return total

    @contextmanager
    def let_go_of_casts(self) -> Iterator[None]:
        """Have autocast keep no copy of a spread weight: of all layers they are a whole model."""
        before = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(before and not self.spread)
        try:
            yield
        finally:
            torch.set_autocast_cache_enabled(before)

    def let_go(self) -> None:
        """Forget the gradients of spread weights: the model does not know of them."""
        for own, weight in zip(self.parameters, self._weights.values(), strict=True):
            if is_spread(weight):
                own.grad = None

    def whole_state(self, state: TrainingState) -> TrainingState:
        """``state`` of one device; on the first device with all numbers, on the host."""

        def gather(weight: Tensor, part: Tensor) -> Tensor:
            found = whole(weight, own_part(part).to(weight.device))
            # A slice without numbers would keep all of them in memory.
            return found.cpu() if self._ranks.index == 0 else found.new_empty(0)

        return self._changed(state, gather)

    def own_state(self, state: TrainingState) -> TrainingState:
        """``state`` of all devices; with the numbers of this one."""
        return self._changed(state, cut)

    def _changed(
        self, state: TrainingState, change: Callable[[Tensor, Tensor], Tensor]
    ) -> TrainingState:
        """Weights and what is kept beside each of them, changed by ``change(weight, kept)``."""

        def changed(kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: change(self._weights[name], one) for name, one in kept.items()}

        moments = dict[int, dict[str, Any]]()
        weights = list(self._weights.values())
        for number, kept in state.optimizer["state"].items():
            moments[number] = {
                key: change(weights[number], value) if key in MOMENTS else value
                for key, value in kept.items()
            }
        return replace(
            state,
            weights=changed(state.weights),
            best=changed(state.best),
            optimizer={**state.optimizer, "state": moments},
        )
