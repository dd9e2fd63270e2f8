"""Initial: adapters whose first weights are made from training rows, by PEFT's own code."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import RunError
from harness.spec.methods import initialisation
from harness.spec.plan import Plan
from harness.weights.wrapping import adapter_config, wrap

if TYPE_CHECKING:
    import torch

Batches = Sequence[Mapping[str, Any]]


def wrap_on_rows(model: Any, plan: Plan, batches: Batches, steps: int | None) -> Any:
    """``model`` with ``plan``'s adapter, started from forward passes over ``batches``.

    ``batches`` are what the model takes, with labels. The base's weights end up changed where the
    method takes the adapter's start out of them (CorDA, LoRA-GA).

    Raises:
        RunError: there are no rows to start from.
    """
    assert plan.adapter is not None  # noqa: S101 - asked by attach_adapter
    if not batches:
        raise RunError("no training rows to start the adapter from", where="[adapter]")
    named = initialisation(plan.adapter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if named == "eva":
            return _eva(model, plan, batches, steps)
        config = adapter_config(plan.adapter, steps)
        if named == "corda":
            _corda(model, config, batches)
        else:
            _lora_ga(model, config, batches)
        return wrap(model, plan.adapter, steps=steps)


def _eva(model: Any, plan: Plan, batches: Batches, steps: int | None) -> Any:
    """Right singular vectors of each layer's inputs (Paischer et al., 2024, section 3.2)."""
    from peft import initialize_lora_eva_weights

    assert plan.adapter is not None  # noqa: S101
    wrapped = wrap(model, plan.adapter, steps=steps)
    initialize_lora_eva_weights(wrapped, dataloader=list(batches), show_progress_bar=False)
    return wrapped


def _corda(model: Any, config: Any, batches: Batches) -> None:
    """Covariances of each layer's inputs (Yang et al., 2024, section 3.2)."""
    import torch
    from peft.tuners.lora.corda import preprocess_corda

    def run() -> None:
        with torch.no_grad():
            for batch in batches:
                model(**batch, use_cache=False)

    preprocess_corda(model, _with_names(model, config), run_model=run)


def _lora_ga(model: Any, config: Any, batches: Batches) -> None:
    """The gradient of each layer's weight (Wang et al., 2024, section 3.3)."""
    from peft.tuners.lora.loraga import preprocess_loraga

    def run() -> None:
        model.eval()  # PEFT has switched the base's own dropout on
        for batch in batches:
            loss: torch.Tensor = model(**batch, use_cache=False).loss
            loss.backward()  # type: ignore[no-untyped-call]

    preprocess_loraga(model, _with_names(model, config), train_step=run)


def _with_names(model: Any, config: Any) -> Any:
    """PEFT replaces "all-linear" by names only when it wraps; these look before that."""
    from peft.tuners.tuners_utils import _maybe_include_all_linear_layers

    return _maybe_include_all_linear_layers(config, model)
