"""Forgetting is bits per byte of unrelated text, an article being an item."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from harness.errors import UserError
from harness.records.events import Silence
from harness.score.forgetting import read_pages, score_forgetting
from harness.score.items import Place
from harness.score.likelihood import Likelihood
from tests.score.conftest import make_model

PAGES = ["the cat sat on the mat", "a dog and a cat", "one two three"]


def test_bits_per_byte_are_those_computed_by_hand(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    likelihood = Likelihood(model, 64, Silence())
    score = score_forgetting(likelihood, tokenizer, PAGES, Place(tmp_path, "after", "training"), 4)
    start = tokenizer.bos_token_id
    start = tokenizer.eos_token_id if start is None else start
    bits = size = 0.0
    for page in PAGES:
        ids = tokenizer.encode(page, add_special_tokens=False)[:4]
        with torch.no_grad():
            logits = model(torch.tensor([[start, *ids]])).logits[0].double()
        chosen = torch.log_softmax(logits, -1)[torch.arange(len(ids)), torch.tensor(ids)]
        bits -= float(chosen.sum()) / math.log(2)
        size += len(tokenizer.decode(ids).encode())
    assert score.value == pytest.approx(bits / size, rel=1e-5)
    assert (score.metric, score.direction, score.n) == ("bits_per_byte", "lower", len(PAGES))
    table = pq.read_table(tmp_path / str(score.items))
    assert np.sum(table["numerator"]) == pytest.approx(bits, rel=1e-5)


def test_wikitext_is_read_from_the_folder(shared_data: Path) -> None:
    pages = read_pages(shared_data / "lm_eval")
    assert len(pages) == 62
    assert all(page.strip().startswith("=") for page in pages)


def test_missing_text_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no text to measure forgetting on"):
        read_pages(tmp_path)


def test_articles_longer_than_the_context_are_scored_in_windows(
    tokenizer: Any, tmp_path: Path
) -> None:
    model = make_model(model_type="gpt2", max_position_embeddings=24)
    likelihood = Likelihood(model, 64, Silence())
    place = Place(tmp_path, "after", "training")
    score = score_forgetting(likelihood, tokenizer, [page * 6 for page in PAGES], place, 40)
    assert (score.details["window"], score.details["stride"]) == (24, 12)
    whole = score_forgetting(likelihood, tokenizer, PAGES, place, 6)
    assert "window" not in whole.details
    asked = [one.details["asked"] for one in (score, whole)]
    assert [("window" in one) for one in asked if isinstance(one, dict)] == [True, False], (
        "what a shorter context asks is paired with its like alone"
    )
