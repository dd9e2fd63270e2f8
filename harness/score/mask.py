"""Mask: a tree of tokens attends as the model's own mask functions say, at the tokens' depths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from harness.score.prefixes import Layout
from harness.weights.masks import replaced


class TreeMask:
    """Turns transformers' masks over flat positions into masks over the paths of a tree.

    Transformers makes every mask of a forward pass from a function of two positions (a window,
    a chunk, plain causality), through one entry of its mask interface for each attention
    implementation. Here the function is asked about the depths of two tokens in place of their
    flat positions, and a token attends only to its own path.

    Attributes:
        calls: masks made so far; none means that the model makes its masks in another way.
    """

    def __init__(self, base: int, layout: Layout, device: torch.device) -> None:
        """A tree laid flat after ``base`` cached tokens."""
        size = len(layout.tokens)
        self._base, self._length = base, base + size
        depths = torch.from_numpy(layout.depths).to(device)
        self._depths = torch.cat([torch.arange(base, device=device), depths])
        self._sees = torch.ones((size, self._length), dtype=torch.bool, device=device)
        self._sees[:, base:] = torch.from_numpy(layout.sees).to(device)
        self.calls = 0

    def wrap(self, make_mask: Callable[..., Any]) -> Callable[..., Any]:
        """The same entry of the mask interface, for this tree."""

        def make(*, mask_function: Callable[..., Any], **settings: Any) -> Any:
            queries = settings["q_offset"] + settings["q_length"]
            keys = settings["kv_offset"] + settings["kv_length"]
            if (queries, keys) != (self._length, self._length) or settings["kv_offset"]:
                msg = f"the cache holds {keys} of {self._length} tokens"
                raise ValueError(msg)
            self.calls += 1
            settings |= {"attention_mask": None, "allow_is_causal_skip": False, "local_size": None}
            return make_mask(mask_function=self._along_paths(mask_function), **settings)

        return make

    def _along_paths(self, mask_function: Callable[..., Any]) -> Callable[..., Any]:
        def attends(batch: Any, head: Any, query: Any, key: Any) -> Any:
            own = mask_function(batch, head, self._depths[query], self._depths[key])
            return own & self._sees[query - self._base, key]

        return attends


@contextmanager
def tree_masks(implementation: str, tree: TreeMask) -> Iterator[None]:
    """While this is open, masks of an attention implementation are those of the tree.

    Raises:
        ValueError: transformers makes no mask tensors for this implementation.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    if implementation not in ("sdpa", "eager"):
        msg = f"attention {implementation!r} takes no mask of its own"
        raise ValueError(msg)
    before = ALL_MASK_ATTENTION_FUNCTIONS[implementation]
    with replaced(ALL_MASK_ATTENTION_FUNCTIONS, implementation, tree.wrap(before)):
        yield
