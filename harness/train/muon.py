"""Muon: torch's Muon for matrices and AdamW for everything else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import AdamW, Muon, Optimizer


class MuonAndAdamW(Optimizer):
    """Orthogonalised momentum for hidden matrices (Jordan et al., 2024), AdamW for the rest.

    Muon's steps are scaled to the size of AdamW's (Liu et al., 2025, arXiv 2502.16982), so that
    one learning rate and one decay serve both.
    """

    def __init__(self, model: nn.Module, rate: float, decay: float) -> None:
        """Take the trainable parameters of ``model``."""
        outer = _outer_weights(model)
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        inner = [weight for weight in trained if weight.ndim == 2 and id(weight) not in outer]
        taken = {id(weight) for weight in inner}
        rest = [weight for weight in trained if id(weight) not in taken]
        self._parts: list[Optimizer] = []
        if inner:
            scale = "match_rms_adamw"
            self._parts.append(Muon(inner, lr=rate, weight_decay=decay, adjust_lr_fn=scale))
        if rest:
            self._parts.append(AdamW(rest, lr=rate, weight_decay=decay))
        super().__init__([{**group} for part in self._parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Have the parts work on this optimizer's groups and state, which others read and set."""
        groups: Iterable[dict[str, Any]] = iter(self.param_groups)
        for part in self._parts:
            part.param_groups = [next(groups) for _ in part.param_groups]  # type: ignore[call-overload]
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both."""
        loss = None if closure is None else closure()
        for part in self._parts:
            part.step()
        return loss


def _outer_weights(model: nn.Module) -> set[int]:
    """Embeddings and the output head: matrices whose rows are words, which Muon is not for."""
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    found = [module for module in (*ends, *base.modules()) if isinstance(module, nn.Embedding)]
    found += [module for module in ends if module is not None]
    return {id(weight) for module in found for weight in module.parameters(recurse=False)}
