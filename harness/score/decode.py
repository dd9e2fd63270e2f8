"""Decode: greedy answers with a cache of fixed size, whose step is one CUDA graph on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, StaticCache, StaticLayer

from harness.quantize.scheme import scheme_of
from harness.weights.sharded import is_sharded

# Settings of a model's generation_config.json that do not change greedy decoding.
HARMLESS = frozenset(
    (
        "_from_model_config", "bos_token_id", "cache_implementation", "do_sample", "eos_token_id",
        "max_length", "max_new_tokens", "output_attentions", "output_hidden_states",
        "pad_token_id", "temperature", "top_k", "top_p", "transformers_version", "use_cache",
    )
)  # fmt: skip
# Rotary embeddings that depend on positions alone; others look at the longest and adapt.
FIXED_ROPES = ("default", "linear", "llama3", "yarn")
LOOK_EVERY = 8  # steps between two looks at whether all answers have ended


def own_settings(model: Any) -> str:
    """What the model's own ``generation_config.json`` changes in every answer; "" where nothing.

    Transformers applies a repetition penalty, for example, to greedy answers too.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    settings = getattr(base, "generation_config", None)
    changed = {} if settings is None else settings.to_diff_dict()
    return ", ".join(f"{key} = {changed[key]}" for key in sorted(changed.keys() - HARMLESS))


def decodes(model: Any) -> bool:
    """Whether :func:`greedy` answers as ``model.generate`` would.

    It does where attention reaches back to the beginning in every layer, nothing in a forward
    pass depends on values, no soft prompt stands before the tokens, and greedy means greedy.
    """
    if is_sharded(model):  # devices would have to wait for each other inside a graph
        return False
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    configs = getattr(model, "peft_config", {}).values()
    if any(config.is_prompt_learning for config in configs):
        return False
    if not getattr(base, "_can_compile_fullgraph", False):
        return False
    settings = getattr(base, "generation_config", None)
    if settings is None or not HARMLESS.issuperset(settings.to_diff_dict()):
        return False
    if any(type(layer) is not StaticLayer for layer in StaticCache(base.config, 1).layers):
        return False
    return all(_depends_on_shapes_only(module) for module in model.modules())


def _depends_on_shapes_only(module: Any) -> bool:
    if getattr(module, "rope_type", "default") not in FIXED_ROPES:
        return False
    scheme = scheme_of(module)
    return scheme is None or scheme.plain_product


class _Room(StaticLayer):  # type: ignore[misc]
    """Transformers' own, without marks for its compiler, whose import takes seconds."""

    cumulative_length: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make room for keys and values like these: (rows, heads, tokens, size)."""
        self.dtype, self.device = key_states.dtype, key_states.device
        rows, heads, _, size = key_states.shape
        self.keys = key_states.new_zeros((rows, heads, self.max_cache_len, size))
        self.values = value_states.new_zeros(
            (rows, heads, self.max_cache_len, value_states.shape[-1])
        )
        self.cumulative_length = self.cumulative_length.to(self.device)
        self.is_initialized = True


@dataclass(frozen=True)
class PaddedPrompts:
    """Prompts to answer with at most ``limit`` tokens, or up to the token ``end``.

    ``ids`` and ``mask`` are (rows, width), padded on the left.
    """

    ids: Tensor
    mask: Tensor
    limit: int
    end: int


class _Decoding:
    """Answers on their way: one token a row and step, everything in tensors of fixed size."""

    def __init__(self, model: Any, asked: PaddedPrompts) -> None:
        """Run the prompts, whose first tokens are known then."""
        self._model = model
        ids, mask, limit = asked.ids, asked.mask, asked.limit
        rows, width = ids.shape
        base = model.get_base_model() if hasattr(model, "peft_config") else model
        depth = len(StaticCache(base.config, 1).layers)
        self._cache = Cache(layers=[_Room(width + limit) for _ in range(depth)])
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        self.tokens = ids.new_zeros((rows, limit))
        self._at = ids.new_zeros(1)
        self._positions = positions[:, -1:] + 1
        self._newest = logits[:, -1].argmax(-1, keepdim=True)
        self.tokens.index_copy_(1, self._at, self._newest)
        lowest = torch.finfo(logits.dtype).min
        self._mask = logits.new_full((rows, 1, 1, width + limit), lowest)
        self._mask[:, 0, 0, :width].masked_fill_(mask.bool(), 0)
        self._end = torch.full_like(self._at, width)

    def step(self) -> None:
        """One more token for each row."""
        self._mask.index_fill_(3, self._end, 0)
        logits = self._model(
            input_ids=self._newest,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
        ).logits
        self._newest.copy_(logits[:, -1].argmax(-1, keepdim=True))
        for counter in (self._at, self._positions, self._end):
            counter.add_(1)
        self.tokens.index_copy_(1, self._at, self._newest)


def greedy(model: Any, asked: PaddedPrompts, tell: Callable[[int], None]) -> Tensor:
    """Likeliest tokens after the prompts, (rows, limit); what follows a row's end means nothing.

    ``tell`` is called with the number of tokens there are.
    """
    with torch.inference_mode():
        decoding = _Decoding(model, asked)
        replay: Callable[[], None] = decoding.step
        for done in range(1, asked.limit):
            if done % LOOK_EVERY == 0:
                tell(done)
                if bool((decoding.tokens[:, :done] == asked.end).any(1).all()):
                    break
            if done == 2 and asked.ids.is_cuda:  # the first step has made libraries ready
                replay = _recorded(decoding)
            replay()
        return decoding.tokens


def _recorded(decoding: _Decoding) -> Callable[[], None]:
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    capture: Any = torch.cuda.graph(graph)
    with capture:
        decoding.step()
    return graph.replay
