"""Footprint: the bytes of a training step on the plain path, rehearsed on shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.spec.methods import virtual_tokens
from harness.spec.plan import Plan
from harness.spec.variant import DTYPE_BYTES
from harness.train.peaks import TrainingPeaks
from harness.train.rehearsal import casting, checkpoint_layers, rehearse, rehearsing
from harness.train.sft.logits import OwnLogits
from harness.train.sft.loss import loss_of
from harness.train.sft.offload import keep_inputs_on_host
from harness.weights.shape import transformers_config


def rehearse_training(
    plan: Plan, rows: int, tokens: int, *, keeps_gradients: bool = False
) -> TrainingPeaks:
    """Peaks of one forward and backward pass over ``rows`` × ``tokens``, all of them labelled.

    ``keeps_gradients``: gradients have memory of their own, which is not counted here.
    """

    def measure(model: Any) -> tuple[int, int, int, int]:
        known = _make_room_for_gradients(model) if keeps_gradients else []
        return _train(plan, model, (rows, tokens), known)

    return TrainingPeaks(*rehearse(plan, measure))


def host_bytes(plan: Plan, rows: int, tokens: int) -> int:
    """Page-locked host memory for the input of each layer; torch rounds it to a power of two."""
    config: Any = transformers_config(plan.model)
    one = rows * tokens * int(config.hidden_size) * DTYPE_BYTES[plan.stored]
    return int(config.num_hidden_layers) * (1 << (one - 1).bit_length())


def _make_room_for_gradients(model: nn.Module) -> list[Tensor]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.empty_like(parameter)
    return [parameter.grad for parameter in trained if parameter.grad is not None]


def _train(
    plan: Plan, model: Any, shape: tuple[int, int], known: Sequence[Tensor]
) -> tuple[int, int, int, int]:
    rows, tokens = shape
    model.train()
    base: Any = model.get_base_model() if plan.adapter is not None else model
    if plan.training.gradient_checkpointing:
        checkpoint_layers(model)
        if plan.training.activation_offload:
            keep_inputs_on_host(model)
        # Otherwise the first layer's stand-in would not see that gradients are asked for.
        base.get_input_embeddings().register_forward_hook(_ask_for_gradients)
    if not known and plan.device_rows > plan.training.micro_batch_size:
        _make_room_for_gradients(model)  # kept from the last micro-batch, and counted
    with casting(_autocast(plan)), rehearsing(model, known) as live:
        logits = OwnLogits(model)
        hidden = logits.hidden(**_inputs(plan, rows, tokens))
        saved = live.live
        live.reset_peak()
        labelled = torch.empty(rows * (tokens - 1), dtype=torch.int64, device="meta")
        chosen = hidden[:, :-1].flatten(0, 1)[labelled]
        loss = loss_of(chosen, logits, labelled)
        del chosen
        behind = []

        def loss_is_behind(_gradient: Tensor) -> None:
            behind.append(live.peak)
            live.reset_peak()

        hidden.register_hook(loss_is_behind)  # type: ignore[no-untyped-call]
        del hidden
        in_loss = live.peak
        live.reset_peak()
        loss.backward()  # type: ignore[no-untyped-call]
        return saved, in_loss, max(live.peak, *behind), live.peak


def _autocast(plan: Plan) -> torch.dtype | None:
    """The dtype of autocast where weights themselves are cast by it, on a GPU."""
    casts = plan.device.kind == "cuda" and plan.stored != plan.precision.compute
    return getattr(torch, plan.precision.compute) if casts else None


def _ask_for_gradients(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
    output.requires_grad_()


def _inputs(plan: Plan, rows: int, tokens: int) -> dict[str, Tensor]:
    """A lone whole row needs no mask; padded or packed ones get it per pair of positions.

    PEFT lengthens the mask of a soft prompt itself, and only one of a value per token; it is left
    out, which is little beside the rest.
    """
    inputs = {"input_ids": torch.empty(rows, tokens, dtype=torch.int64, device="meta")}
    if (plan.training.packing or rows > 1) and not virtual_tokens(plan.adapter):
        mask = torch.empty(rows, 1, tokens, tokens, dtype=torch.bool, device="meta")
        inputs["attention_mask"] = mask
    return inputs
