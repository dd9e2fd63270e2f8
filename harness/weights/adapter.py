"""Adapter: attached alike for every variant, held still where it must be, and saved."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import RunError
from harness.spec.methods import (
    TAKES_START_OUT,
    held_still,
    initialisation,
    needs_of,
    reads_rows,
)
from harness.spec.plan import Plan
from harness.weights.sharded import is_sharded, plain_name, weights_in_sight
from harness.weights.wrapping import wrap

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def attach_adapter(
    model: PreTrainedModel,
    plan: Plan,
    steps: int | None = None,
    batches: Sequence[Mapping[str, Any]] = (),
) -> PreTrainedModel:
    """Make ``plan``'s parameters trainable and everything else frozen.

    ``steps`` is the number of optimizer steps, where it is known by now; ``batches`` are training
    rows as the model takes them, for adapters that start from such.

    An adapter is created from the plan's seed, then cast to the planned dtype, so that it is the
    same on every base. ``prepare_model_for_kbit_training`` is not used: it would upcast the
    unquantized weights of quantized variants only, and no two variants would be alike.
    """
    import torch

    from harness.weights.mixing import let_dtypes_mix

    torch.manual_seed(plan.seed)
    model.requires_grad_(plan.method == "full")
    if plan.adapter is None:
        return model
    wrapped: PreTrainedModel
    if reads_rows(plan.adapter):
        from harness.weights.initial import wrap_on_rows

        wrapped = wrap_on_rows(model, plan, batches, steps)
    else:
        with weights_in_sight(model):
            wrapped = wrap(model, plan.adapter, steps=steps)
    hold_still(wrapped, needs_of(plan.adapter).fixed)
    if needs_of(plan.adapter).adds_in_place and plan.quantization.type != "none":
        _hand_on_copies(wrapped)
    dtype = getattr(torch, plan.precision.trainable)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    hold_still(wrapped, held_still(plan.training.optimizer))
    let_dtypes_mix(wrapped, getattr(torch, plan.precision.compute))
    if initialisation(plan.adapter).startswith(TAKES_START_OUT):
        _remember_start(wrapped)
    return wrapped


def _hand_on_copies(wrapped: nn.Module) -> None:
    """Let the base layers under an adapter give outputs that it may write into."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in wrapped.modules():
        if isinstance(module, BaseTunerLayer):
            base = module.get_base_layer()
            base.register_forward_hook(lambda _, __, output: output.clone())


START = "_start_of_adapter"  # attribute of a wrapped model whose base lacks the adapter's start


def _remember_start(wrapped: Any) -> None:
    from peft import get_peft_model_state_dict

    found = get_peft_model_state_dict(wrapped).items()
    setattr(wrapped, START, {name: weight.detach().clone() for name, weight in found})


def save_adapter(model: Any, folder: Path) -> None:
    """Write ``model``'s adapter so that PEFT loads it onto the base as it came.

    Where the adapter's start was taken out of the base, what is written is the difference from
    that start, as a plain LoRA of twice the rank.

    Raises:
        OSError, SafetensorError: the folder cannot be written.
    """
    start = getattr(model, START, None)
    if is_sharded(model):
        _save_beside_shards(model, folder)
        return
    if start is None:
        model.save_pretrained(folder, safe_serialization=True)
        return
    from safetensors.torch import save_file

    config = model.peft_config["default"]
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_file(start, Path(scratch) / "adapter_model.safetensors")
        model.peft_config["default"] = copy.deepcopy(config)
        try:
            model.save_pretrained(
                folder, safe_serialization=True, path_initial_model_for_weight_conversion=scratch
            )
        finally:
            model.peft_config["default"] = config


def _save_beside_shards(model: Any, folder: Path) -> None:
    """Write the adapter alone: PEFT would have every device's layers gathered for it.

    PEFT finds an adapter's weights by the names of layers, which sharding has lengthened; in the
    files, the configuration's list of layers included, they have those of a plain model.
    """
    from safetensors.torch import load_file, save_file

    state = {name: one.detach() for name, one in model.named_parameters() if one.requires_grad}
    model.save_pretrained(folder, safe_serialization=True, state_dict=state)
    path = folder / "adapter_model.safetensors"
    found = {plain_name(name): weight for name, weight in load_file(path).items()}
    if len(found) != len(state):
        raise RunError(
            f"PEFT writes {len(found)} of {len(state)} weights of the adapter",
            where="saving the adapter of a sharded model",
            hint="this is a defect of the harness or of a library version; please report it",
        )
    save_file(found, path, metadata={"format": "pt"})
    config = folder / "adapter_config.json"
    config.write_text(plain_name(config.read_text(encoding="utf-8")), encoding="utf-8")


def hold_still(model: nn.Module, named: str | None) -> None:
    """Freeze the parameters with ``named`` in their names; none if that is None."""
    for name, parameter in model.named_parameters():
        if named is not None and named in name:
            parameter.requires_grad = False
