"""Mask: tokens of a tree attend as they would if each path stood alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask

from harness.score.mask import TreeMask, tree_masks
from harness.score.prefixes import Layout, Tree, lay_out

CPU = torch.device("cpu")
ROWS = [np.array(row, dtype=np.int64) for row in ((1, 2, 3), (1, 2, 4, 5), (1, 6))]


def causal(batch: Any, head: Any, query: Any, key: Any) -> Any:
    del batch, head
    return key <= query


def window(size: int) -> Any:
    """Causal, and only the last ``size`` tokens."""
    return lambda batch, head, query, key: causal(batch, head, query, key) & (key > query - size)


def mask_of(layout: Layout, function: Any, base: int = 0) -> np.ndarray:
    """What the model's attention is given: shape (tokens of the tree, cached and tree)."""
    size = len(layout.tokens)
    tree = TreeMask(base, layout, CPU)
    found = tree.wrap(sdpa_mask)(
        mask_function=function,
        batch_size=1,
        q_length=size,
        kv_length=base + size,
        q_offset=base,
        kv_offset=0,
        device=CPU,
    )
    assert tree.calls == 1
    return found[0, 0].numpy()


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_each_path_is_masked_as_if_it_stood_alone(size: int) -> None:
    layout = lay_out(ROWS, Tree(0, (0, 1, 2)))
    mask = mask_of(layout, window(size))
    for member, row in enumerate(ROWS):
        path = layout.paths[member]
        for place in range(len(row)):
            alone = [position for position in range(place + 1) if position > place - size]
            assert np.flatnonzero(mask[path[place]]).tolist() == path[alone].tolist()


def test_cached_tokens_are_seen_by_all_as_far_as_the_window_reaches() -> None:
    layout = lay_out(ROWS[:2], Tree(2, (0, 1)))
    whole = mask_of(layout, causal, base=2)
    assert whole.tolist() == [
        [True, True, True, False, False],
        [True, True, False, True, False],
        [True, True, False, True, True],
    ]
    near = mask_of(layout, window(2), base=2)
    assert near[:, 0].tolist() == [False, False, False], "two tokens back, out of reach"
    assert near[:, 1].tolist() == [True, True, False]


def test_a_cache_of_another_length_is_refused() -> None:
    layout = lay_out(ROWS, Tree(0, (0, 1, 2)))
    tree = TreeMask(0, layout, CPU)
    with pytest.raises(ValueError, match="the cache holds 9 of 6 tokens"):
        tree.wrap(sdpa_mask)(mask_function=causal, q_length=6, kv_length=9, q_offset=0, kv_offset=0)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_library_s_own_masks_are_back_afterwards(implementation: str) -> None:
    before = ALL_MASK_ATTENTION_FUNCTIONS[implementation]
    tree = TreeMask(0, lay_out(ROWS, Tree(0, (0, 1, 2))), CPU)
    with tree_masks(implementation, tree):
        assert ALL_MASK_ATTENTION_FUNCTIONS[implementation] is not before
    assert ALL_MASK_ATTENTION_FUNCTIONS[implementation] is before

    def fail() -> None:
        with tree_masks(implementation, tree):
            raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        fail()
    assert ALL_MASK_ATTENTION_FUNCTIONS[implementation] is before


def test_an_attention_without_mask_tensors_is_refused() -> None:
    tree = TreeMask(0, lay_out(ROWS, Tree(0, (0,))), CPU)
    with pytest.raises(ValueError, match="takes no mask of its own"), tree_masks("flash", tree):
        pass
