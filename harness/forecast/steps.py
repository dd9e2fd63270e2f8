"""Steps: one training step and one scoring pass of a plan, rehearsed on shapes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.forecast.phantom import phantom_model
from harness.forecast.rehearsal import checkpoint_layers, rehearsing
from harness.spec.plan import Plan
from harness.train.peaks import TrainingPeaks

LOSS_CHUNK = 1024  # positions whose logits harness.train.sft.loss holds at a time
SHALLOW = (1, 2)  # depths that are rehearsed; deeper models follow a straight line


def rehearse_training(plan: Plan, rows: int, tokens: int) -> TrainingPeaks:
    """Peaks of one forward and backward pass over ``rows`` × ``tokens``, all of them labelled."""
    peaks = [astuple(_train(plan, layers, rows, tokens)) for layers in _depths(plan)]
    return TrainingPeaks(*_extrapolate(plan, peaks))


def rehearse_scoring(plan: Plan, tokens: int) -> int:
    """Most bytes beside the weights while ``tokens`` in one row pass the layers for a score."""
    peaks = [(_score(plan, layers, tokens),) for layers in _depths(plan)]
    return _extrapolate(plan, peaks)[0]


def _depths(plan: Plan) -> tuple[int, ...]:
    depth = model_depth(plan)
    return SHALLOW if depth > max(SHALLOW) else (depth,)


def _extrapolate(plan: Plan, peaks: Sequence[tuple[int, ...]]) -> list[int]:
    """Every layer adds the same bytes, so two depths give the line."""
    if len(peaks) == 1:
        return list(peaks[0])
    further = (model_depth(plan) - SHALLOW[1]) // (SHALLOW[1] - SHALLOW[0])
    return [high + further * (high - low) for low, high in zip(*peaks, strict=True)]


def model_depth(plan: Plan) -> int:
    """Layers of the planned model."""
    from harness.weights.shape import transformers_config

    return int(transformers_config(plan.model).num_hidden_layers)


def _train(plan: Plan, layers: int, rows: int, tokens: int) -> TrainingPeaks:
    model = phantom_model(plan, layers).train()
    base: Any = model.get_base_model() if plan.adapter is not None else model  # type: ignore[operator]
    if plan.training.gradient_checkpointing:
        checkpoint_layers(model)
        # Otherwise the first layer's stand-in would not see that gradients are asked for.
        base.get_input_embeddings().register_forward_hook(_ask_for_gradients)
    if plan.budget.batch_size > plan.training.micro_batch_size:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)  # kept from the last micro-batch
    with _quiet(), rehearsing(model) as live:
        hidden = base.base_model(**_inputs(plan, rows, tokens), use_cache=False).last_hidden_state
        saved = live.live
        live.reset_peak()
        loss = _loss(hidden, base.get_output_embeddings())
        del hidden
        in_loss = live.peak
        live.reset_peak()
        loss.backward()  # type: ignore[no-untyped-call]
        return TrainingPeaks(saved, in_loss, live.peak)


def _ask_for_gradients(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
    output.requires_grad_()


def _inputs(plan: Plan, rows: int, tokens: int) -> dict[str, Tensor]:
    """A lone whole row needs no mask; padded or packed ones get it per pair of positions."""
    inputs = {"input_ids": torch.empty(rows, tokens, dtype=torch.int64, device="meta")}
    if plan.training.packing or rows > 1:
        mask = torch.empty(rows, 1, tokens, tokens, dtype=torch.bool, device="meta")
        inputs["attention_mask"] = mask
    return inputs


def _loss(hidden: Tensor, head: nn.Linear) -> Tensor:
    """As :func:`harness.train.sft.loss.summed_loss`, every position labelled."""
    shifted = hidden[:, :-1].flatten(0, 1)
    chosen = shifted[torch.empty(len(shifted), dtype=torch.int64, device="meta")]
    if not head.weight.requires_grad:
        chosen = chosen.to(head.weight.dtype)
        loss: Tensor = _FrozenHeadLoss.apply(  # type: ignore[no-untyped-call]
            chosen, head.weight, head.bias
        )
        return loss
    targets = torch.empty(len(chosen), dtype=torch.int64, device="meta")
    return functional.cross_entropy(head(chosen).float(), targets, reduction="sum")


class _FrozenHeadLoss(torch.autograd.Function):
    """Logits chunk by chunk, and the gradient of the hidden states for the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        gradient = torch.empty_like(hidden)
        slope = None
        for part in torch.split(hidden, LOSS_CHUNK)[:2]:
            logits = functional.linear(part, weight, bias).float()
            logits.logsumexp(dim=-1, keepdim=True)  # the slope of the chunk before still lives
            slope = logits
            slope.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        return hidden.new_empty((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].to(gradient.dtype), None, None


def _score(plan: Plan, layers: int, tokens: int) -> int:
    model = phantom_model(plan, layers).eval()
    base: Any = model.get_base_model() if plan.adapter is not None else model  # type: ignore[operator]
    with _quiet(), torch.no_grad(), rehearsing(model) as live:
        base.base_model(
            input_ids=torch.empty(1, tokens, dtype=torch.int64, device="meta"),
            attention_mask=torch.empty(1, 1, tokens, tokens, dtype=torch.bool, device="meta"),
            use_cache=False,
        )
        return live.peak


@contextmanager
def _quiet() -> Iterator[None]:
    """Bitsandbytes says at every call that int8 products cast their input."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
