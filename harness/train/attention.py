"""Attention: LongLoRA's shifted sparse attention, in place of the model's own while it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness.errors import RunError, UserError
from harness.spec.plan import Plan
from harness.weights.interpolation import interpolate
from harness.weights.shape import meta_model, transformers_config

Validate = Callable[..., Any]
# What a model may hand to its attention that the groups do not know.
UNKNOWN = ("sliding_window", "softcap", "s_aux", "position_bias")


def shifted_attention(  # noqa: PLR0913 - transformers' signature
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    group: int,
    scaling: float | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """Causal attention within groups of ``group`` tokens (Chen et al., 2023, arXiv 2309.12307).

    For the second half of the heads groups begin half a group later, and the tokens before the
    first of them are a group of their own: nothing sees what comes after it. ``query`` is
    (batch, heads, tokens, width), ``key`` and ``value`` may have fewer heads; the result is
    (batch, tokens, heads, width). Rows are padded on the right.

    Raises:
        RunError: the model asks for more than plain causal attention.
    """
    asked = [name for name in UNKNOWN if given.get(name) is not None]
    if attention_mask is not None or not getattr(module, "is_causal", True):
        asked.append("a mask of its own")
    if asked:
        raise RunError(f"the model's attention has {', '.join(asked)}")
    heads = query.shape[1]
    copies = heads // key.shape[1]
    key, value = key.repeat_interleave(copies, 1), value.repeat_interleave(copies, 1)
    half = heads - heads // 2
    out = [
        _within_groups((query[:, part], key[:, part], value[:, part]), first, group, scaling)
        for part, first in ((slice(half), 0), (slice(half, None), group // 2))
        if query[:, part].shape[1]
    ]
    return torch.cat(out, dim=1).transpose(1, 2).contiguous(), None


def _within_groups(
    parts: tuple[Tensor, Tensor, Tensor], first: int, group: int, scaling: float | None
) -> Tensor:
    """A group of ``first`` tokens and then groups of ``group``, the last one filled up."""
    attend: Any = partial(functional.scaled_dot_product_attention, is_causal=True, scale=scaling)
    batch, heads, tokens, _ = parts[0].shape
    found = []
    if first:
        found.append(attend(*(part[:, :, :first] for part in parts)))
    rest = tokens - first
    if rest > 0:
        # what fills the last group stands after all of its tokens, which do not see it
        filled = [functional.pad(part[:, :, first:], (0, 0, 0, -rest % group)) for part in parts]
        folded = [
            part.reshape(batch, heads, -1, group, part.shape[-1]).transpose(1, 2).flatten(0, 1)
            for part in filled
        ]
        done = attend(*folded)
        done = done.view(batch, -1, heads, group, done.shape[-1]).transpose(1, 2)
        found.append(done.reshape(batch, heads, -1, done.shape[-1])[:, :, :rest])
    return torch.cat(found, dim=2)


@contextmanager
def trained_attention(
    model: Any, plan: Plan, attend: Callable[..., Any] = shifted_attention
) -> Iterator[Callable[[Validate], Validate]]:
    """While this is open, ``model`` attends as ``plan`` asks for in training.

    Outside, for scores and answers, it attends to everything before, as it did; and so it does in
    a function that went through what this gives, such as the one that takes validation losses.
    """
    if plan.training.attention == "full":
        yield lambda function: function
        return
    from transformers import AttentionInterface, AttentionMaskInterface

    group = plan.training.attention_group
    name = f"shifted_{group}"
    AttentionInterface.register(name, partial(attend, group=group))
    AttentionMaskInterface.register(name, _no_mask)
    # a trainer may have given the model a copy of the configuration that its layers read
    found = {id(c): c for m in model.modules() if (c := _attended(m)) is not None}.values()
    own = [(config, config._attn_implementation) for config in found]  # noqa: SLF001
    shifted = [(config, name) for config in found]

    def with_own(function: Validate) -> Validate:
        def called(*given: int) -> Any:
            _attend_as(own)
            try:
                return function(*given)
            finally:
                _attend_as(shifted)

        return called

    _attend_as(shifted)
    try:
        yield with_own
    finally:
        _attend_as(own)


def _attend_as(chosen: list[tuple[Any, str]]) -> None:
    for config, name in chosen:
        config._attn_implementation = name  # noqa: SLF001


def _attended(module: Any) -> Any:
    """The configuration that says how ``module`` attends, if it has one."""
    config = getattr(module, "config", None)
    return config if hasattr(config, "_attn_implementation") else None


def _no_mask(*_: Any, **__: Any) -> None:
    """Groups are causal, and padding stands on the right of what could see it."""


def check_long_context(plan: Plan) -> None:
    """Refuse what the model of ``plan`` cannot do of interpolation and shifted attention.

    Raises:
        UserError: with the reason.
        InvalidFile: the model's TOML states no shape.
    """
    interpolate(transformers_config(plan.model), plan.interpolation)
    if plan.training.attention == "full":
        return
    model: Any = meta_model(plan.model)
    ids = torch.zeros((1, 8), dtype=torch.long, device="meta")
    calls: list[int] = []

    def counted(*given: Any, **more: Any) -> tuple[Tensor, None]:
        calls.append(1)
        return shifted_attention(*given, **more)

    where = f"training.attention of variant {plan.variant}"
    try:
        with trained_attention(model, plan, counted):
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except RunError as error:
        raise UserError(f"shifted attention does not fit: {error.what}", where=where) from None
    if not calls:
        kind = model.config.model_type
        raise UserError(f"{kind} models do not use transformers' attention interface", where=where)
