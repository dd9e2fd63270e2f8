"""Shifted attention is the one written out mask by mask, and is there in training alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.errors import RunError, UserError
from harness.records.events import Silence
from harness.score.contexts import score_contexts
from harness.score.items import Place
from harness.score.likelihood import Likelihood
from harness.train.attention import shifted_attention, trained_attention
from tests.methods.bench import Bench
from tests.methods.conftest import bench
from tests.methods.trial import base_model, train_again

__all__ = ["bench"]


def sees(tokens: int, group: int, *, shifted: bool) -> torch.Tensor:
    """Which token (row) sees which (column)."""
    moved = group // 2 if shifted else 0
    place = (torch.arange(tokens) - moved).div(group, rounding_mode="floor")
    return (place[:, None] == place[None, :]).tril()


def written_out(query: Any, key: Any, value: Any, group: int, scale: float) -> torch.Tensor:
    heads, copies = query.shape[1], query.shape[1] // key.shape[1]
    out = []
    for head in range(heads):
        q, k, v = query[:, head], key[:, head // copies], value[:, head // copies]
        mask = sees(query.shape[2], group, shifted=head >= heads - heads // 2)
        weights = (q @ k.transpose(1, 2) * scale).masked_fill(~mask, float("-inf")).softmax(-1)
        out.append(weights @ v)
    return torch.stack(out, dim=2)


@pytest.mark.parametrize("tokens", [1, 3, 4, 8, 13, 30])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (3, 1), (1, 1)])
def test_shifted_attention_is_the_one_written_out(tokens: int, heads: int, kv_heads: int) -> None:
    random = torch.Generator().manual_seed(tokens)
    query = torch.randn(2, heads, tokens, 6, generator=random)
    key, value = torch.randn(2, 2, kv_heads, tokens, 6, generator=random)
    module = SimpleNamespace(is_causal=True)
    found, _ = shifted_attention(module, query, key, value, None, group=8, scaling=0.3)
    expected = written_out(query, key, value, 8, 0.3)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_nothing_sees_what_comes_after_it() -> None:
    random = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 4, 20, 6, generator=random)
    module = SimpleNamespace(is_causal=True)
    before, _ = shifted_attention(module, query, key, value, None, group=8)
    for later in (query, key, value):
        later[:, :, 15:] = 9.0
    after, _ = shifted_attention(module, query, key, value, None, group=8)
    assert torch.equal(before[:, :15], after[:, :15])


def test_what_the_groups_do_not_know_is_refused() -> None:
    parts = torch.randn(3, 1, 2, 4, 6)
    with pytest.raises(RunError, match="sliding_window"):
        shifted_attention(SimpleNamespace(), *parts, None, group=8, sliding_window=4)


def test_planning_refuses_models_that_cannot_do_it(bench: Bench) -> None:
    with pytest.raises(UserError, match="cannot be interpolated"):
        bench.plan("longlora", "gpt_neo")
    with pytest.raises(UserError, match="do not use transformers' attention interface"):
        bench.plan("lora_attention", "gpt_neo", "training.attention=shifted")
    fast = bench.plan("longlora", "llama", "training.speed=fast")
    assert fast.training.speed == "plain"
    assert "shifted attention" in fast.substitutions[-1].reason
    packed = bench.plan("longlora", "llama", "training.packing=true")
    assert not packed.training.packing


def test_a_trained_model_is_scored_with_full_attention_at_longer_contexts(
    bench: Bench, tmp_path: Any
) -> None:
    plan = bench.plan("longlora", "llama")
    assert plan.training.sequence_length == 96
    trained = train_again(plan)  # its first loss is compared below
    assert trained.losses[0] == pytest.approx(trained.own_loss, abs=1e-5)
    config = trained.model.get_base_model().config
    plain = base_model(plan.model_copy(update={"interpolation": 1}))
    assert config._attn_implementation == plain.config._attn_implementation
    assert config.max_position_embeddings == 4 * plain.config.max_position_embeddings
    ids = torch.arange(60)[None]
    with torch.no_grad():
        full = trained.model(input_ids=ids, use_cache=False).logits
        with trained_attention(trained.model, plan) as own:
            validated = own(lambda: trained.model(input_ids=ids, use_cache=False).logits)()
            shifted = trained.model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(full[:, :12], shifted[:, :12])  # half a group: 96 / 4 / 2
    assert torch.equal(validated, full), "validation losses are taken with full attention"
    assert (full[:, 30:] - shifted[:, 30:]).abs().max() > 1e-4
    random = torch.Generator().manual_seed(0)
    stream = torch.randint(0, 50, (2, 1100), generator=random).tolist()
    likelihood = Likelihood(trained.model, 512, Silence())
    place = Place(tmp_path, "after", "training")
    scores = score_contexts(likelihood, stream, 256, place)
    assert [score.task for score in scores] == ["context_1x", "context_2x", "context_4x"]
    assert [score.details["window"] for score in scores] == [256, 512, 1024]
    assert len({score.details["tokens"] for score in scores}) == 1, "the same tokens are scored"
    own = _perplexity(trained.model, stream[0][:1024], stream[1][:1024])
    assert scores[2].value == pytest.approx(own, rel=1e-4)


def _perplexity(model: Any, *rows: list[int]) -> float:
    ids = torch.tensor(rows)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    return float(loss.exp())
