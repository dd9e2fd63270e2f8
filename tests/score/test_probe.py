"""A way of running a model passes with the model's own rounding, and not with a wrong mask."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness.score.probe import BRANCH, SHARED, find_ways, same

LENGTH = SHARED + BRANCH


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


@torch.inference_mode()
def logits(model: LlamaForCausalLM, tokens: torch.Tensor, shift: int = 0) -> torch.Tensor:
    """Logits of the last ``LENGTH`` tokens, the branch's positions moved by ``shift``."""
    positions = torch.arange(len(tokens))
    positions[-BRANCH:] += shift
    found: torch.Tensor = model(input_ids=tokens[None], position_ids=positions[None]).logits
    return found[0, -LENGTH:]


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(0, 128, (LENGTH,), generator=torch.Generator().manual_seed(1))


def test_upset_single_positions_are_rounding(model: LlamaForCausalLM, tokens: torch.Tensor) -> None:
    own = logits(model, tokens)
    noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(2))
    size = torch.full((LENGTH, 1), 0.06)
    size[[0, 1, 5, 17]] = 0.55  # as the first tokens of SmolLM2 in NF4
    rounded = own + noise * size * own.std(dim=-1, keepdim=True)
    assert (rounded - own).norm() > 0.15 * own.norm(), "not the case that this test is about"
    assert same(rounded, own, exact=False)
    assert not same(rounded, own, exact=True)


def test_a_branch_that_sees_its_neighbour_is_found(
    model: LlamaForCausalLM, tokens: torch.Tensor
) -> None:
    own = logits(model, tokens)
    neighbour = torch.arange(BRANCH)
    seen = torch.cat([tokens[:SHARED], neighbour, tokens[SHARED:]])
    wrong = torch.cat([own[:SHARED], logits(model, seen)[-BRANCH:]])
    assert not same(wrong, own, exact=False)
    assert not same(wrong, own, exact=True)


def test_positions_off_by_the_neighbours_length_are_found(
    model: LlamaForCausalLM, tokens: torch.Tensor
) -> None:
    own = logits(model, tokens)
    assert not same(logits(model, tokens, shift=BRANCH), own, exact=False)


def test_logits_that_are_not_numbers_are_not_the_same(
    model: LlamaForCausalLM, tokens: torch.Tensor
) -> None:
    own = logits(model, tokens)
    assert not same(torch.full_like(own, float("nan")), own, exact=False)


def test_a_model_is_looked_over_in_few_passes(model: LlamaForCausalLM) -> None:
    """Three of its own, one that takes it apart, one side by side, three for a tree."""
    passes: list[int] = []
    hook = model.model.layers[0].register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        assert find_ways(model).bodies[0].way == "shared prefixes"
    finally:
        hook.remove()
    assert len(passes) == 8
