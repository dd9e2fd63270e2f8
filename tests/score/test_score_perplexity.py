"""Perplexity is the one computed by hand: token-weighted, each token once, with context."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import harness.score
from harness.errors import InvalidFile
from harness.records.events import Silence
from harness.score.items import Items
from harness.score.likelihood import Likelihood
from harness.score.perplexity import negative_log_likelihoods, windows
from harness.score.take import take_scores
from harness.spec.schema import parse
from harness.spec.suite import ScoreSpec
from tests.score.conftest import WORDS, make_model


@given(length=st.integers(0, 300), window=st.integers(2, 64), data=st.data())
def test_windows_score_every_token_once_with_context(length: int, window: int, data: Any) -> None:
    stride = data.draw(st.integers(1, window - 1))
    scored = []
    for part in windows(length, window, stride):
        assert part.end - part.start <= window
        assert part.fresh > part.start
        assert part.fresh == 1 or part.fresh - part.start >= window - stride
        scored += range(part.fresh, part.end)
    assert scored == list(range(1, length))


def test_stride_must_leave_context() -> None:
    with pytest.raises(InvalidFile, match="stride"):
        parse(ScoreSpec, {"window": 64, "stride": 64}, where="suite")


def by_hand(model: Any, ids: Any, mask: Any) -> list[float]:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(ids)[None]).logits[0].double()
    probabilities = torch.softmax(logits, -1)
    return [
        -math.log(float(probabilities[at - 1, ids[at]])) for at in range(1, len(ids)) if mask[at]
    ]


def sequences() -> list[tuple[Any, Any]]:
    random = np.random.default_rng(1)
    return [(random.integers(0, WORDS, size), random.random(size) < 0.6) for size in (40, 7, 90, 2)]


def test_losses_are_those_of_the_whole_model() -> None:
    model = make_model()
    found = negative_log_likelihoods(Likelihood(model, 64, Silence()), sequences(), 128, 64)
    for losses, (ids, mask) in zip(found, sequences(), strict=True):
        np.testing.assert_allclose(losses, by_hand(model, ids, mask), atol=1e-4)


def test_short_windows_cut_context_and_nothing_else() -> None:
    model = make_model()
    ((ids, mask),) = sequences()[2:3]
    found = negative_log_likelihoods(Likelihood(model, 64, Silence()), [(ids, mask)], 32, 16)
    expected = by_hand(model, ids[:32], mask[:32])
    for start in range(16, 90 - 16, 16):
        part = slice(start, start + 32)
        fresh = by_hand(model, ids[part], mask[part] & (np.arange(len(ids[part])) >= 16))
        expected += fresh
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_held_out_scores_by_hand(subject: Any, tmp_path: Path) -> None:
    built = subject(ScoreSpec(window=2048, stride=1024))
    found = take_scores(built, "before", tmp_path, Silence())
    perplexity, bits = found.scores
    nats, size = [], 0
    for conversation in built.corpus.held_out:
        sequence = built.renderer.encode(conversation)
        nats += by_hand(built.model, sequence.input_ids.astype(int), sequence.loss_mask)
        size += sum(len(m.text.encode()) for m in conversation.messages if m.role == "assistant")
    assert perplexity.value == pytest.approx(math.exp(np.mean(nats)), rel=1e-5)
    assert bits.value == pytest.approx(sum(nats) / math.log(2) / size, rel=1e-5)
    assert perplexity.n == len(built.corpus.held_out)
    assert perplexity.details["tokens"] == len(nats)
    texts = pq.read_table(tmp_path / str(perplexity.items)).to_pydict()
    first = built.corpus.held_out[0]
    assert texts["prompt"][0] == first.opening[-1].text
    replies = [m.text for m in first.messages if m.role == "assistant"]
    assert "".join(texts["target"][0].split()) == "".join("".join(replies).split())


def test_a_window_over_the_context_is_cut_and_shown(subject: Any, tmp_path: Path) -> None:
    model = make_model(max_position_embeddings=128)
    spec = ScoreSpec(held_out_tokens=200)
    found = take_scores(subject(spec, model), "before", tmp_path, Silence())
    details = found.scores[0].details
    assert (details["window"], details["stride"], details["window_asked"]) == (128, 64, 1024)


def test_standard_error_counts_conversations_not_tokens() -> None:
    random = np.random.default_rng(0)
    means = random.normal(2, 0.5, 200)
    one = Items([str(i) for i in range(200)], [str(i) for i in range(200)], means, np.ones(200))
    assert one.standard_error("identity") == pytest.approx(0.5 / math.sqrt(200), rel=0.15)
    doubled = Items(
        [str(i) for i in range(400)],
        [str(i % 200) for i in range(400)],
        np.tile(means, 2),
        np.ones(400),
    )
    assert doubled.standard_error("identity") == pytest.approx(
        float(one.standard_error("identity") or 0), rel=1e-9
    )
    single = Items(["a"], ["a"], np.ones(1), np.ones(1))
    assert single.standard_error("identity") is None


def test_evaluate_loads_it_from_a_path(tmp_path: Path) -> None:
    import evaluate

    folder = Path(harness.score.__file__).parent / "metric" / "held_out_perplexity"
    metric = evaluate.load(str(folder), cache_dir=str(tmp_path))
    model = make_model()
    pairs = sequences()
    found = metric.compute(
        input_ids=[ids.tolist() for ids, _ in pairs],
        loss_mask=[mask.astype(int).tolist() for _, mask in pairs],
        model=model,
    )
    nats = [loss for ids, mask in pairs for loss in by_hand(model, ids, mask)]
    assert found["perplexity"] == pytest.approx(math.exp(np.mean(nats)), rel=1e-5)
    assert found["tokens"] == len(nats)
    assert found["standard_error"] > 0
