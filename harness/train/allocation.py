"""Allocation: what an adapter asks for that moves its ranks about while it is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.spec.methods import needs_of
from harness.spec.plan import Plan

MEMORIES = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # PEFT's names for what importances are made of


class Allocation:
    """AdaLoRA's budget (Zhang et al., 2023, arXiv 2303.10512), kept by PEFT's own allocator.

    The adapter's matrices are held near orthogonality by a term of the loss, and after every
    optimizer step the singular values that matter least are set to zero.
    """

    def __init__(self, model: Any) -> None:
        """Take a model that PEFT has wrapped."""
        self._tuner = model.base_model
        self._name = self._tuner.trainable_adapter_name
        self._config = self._tuner.peft_config[self._name]

    def penalty(self) -> Tensor:
        """``orth_reg_weight`` times the mean of |PᵀP - I| and |QQᵀ - I| (Frobenius norms).

        As in the forward pass of PEFT's AdaLoraModel, where it is added to the loss.
        """
        norms = []
        for name, weight in self._tuner.model.named_parameters():
            if self._name not in name or not ("lora_A" in name or "lora_B" in name):
                continue
            square = weight @ weight.T if "lora_A" in name else weight.T @ weight
            norms.append(torch.linalg.norm(square - torch.eye(len(square)).to(square)))
        return float(self._config.orth_reg_weight) * torch.stack(norms).mean()

    def after_step(self, step: int) -> None:
        """Allocate after optimizer step ``step`` (from 0), while its gradients are there."""
        self._tuner.update_and_allocate(step)

    def state(self) -> dict[str, Any]:
        """What a resumed training needs beside the weights."""
        memories = {name: dict(getattr(self._tuner.rankallocator, name)) for name in MEMORIES}
        return {**memories, "rank_pattern": self._config.rank_pattern}

    @property
    def ranks(self) -> dict[str, Any]:
        """Which ranks of each layer are left, which saving the adapter goes by."""
        return dict(self._config.rank_pattern or {})

    @ranks.setter
    def ranks(self, pattern: dict[str, Any]) -> None:
        self._config.rank_pattern = pattern or None

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        for name in MEMORIES:
            kept = {key: value.to(self._tuner.device) for key, value in state[name].items()}
            setattr(self._tuner.rankallocator, name, kept)
        self._config.rank_pattern = state["rank_pattern"]


def allocation_of(model: Any, plan: Plan) -> Allocation | None:
    """What moves the ranks of ``plan``'s adapter, if anything does."""
    return Allocation(model) if needs_of(plan.adapter).allocates else None
