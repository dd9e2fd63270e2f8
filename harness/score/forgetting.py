"""Forgetting: bits per byte on text that has nothing to do with the fine-tuning."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import JsonValue

from harness.errors import UserError
from harness.records.record import Score
from harness.score.items import Items, Metric, Place
from harness.score.perplexity import negative_log_likelihoods
from harness.score.subject import Scores, Taking

if TYPE_CHECKING:
    from harness.score.likelihood import Likelihood

BITS_PER_BYTE = Metric("wikitext2", "bits_per_byte", "bits per byte", "lower", headline=True)
DATA_SET = "EleutherAI/wikitext_document_level"
CONFIG = "wikitext-2-raw-v1"


def unrelated_text(taking: Taking) -> Scores:
    """Bits per byte on articles of Wikipedia."""
    subject = taking.subject
    taking.progress.note("scoring unrelated text")
    tokens = subject.plan.score.forgetting_tokens
    pages = read_pages(subject.data_folder)
    score = score_forgetting(taking.likelihood, subject.tokenizer, pages, taking.place, tokens)
    return Scores((score,))


def read_pages(data_folder: Path | None) -> list[str]:
    """The 62 articles of WikiText-2's raw test split.

    Raises:
        UserError: the data set is neither in the folder nor to be had from the hub.
    """
    import datasets

    local = None if data_folder is None else data_folder / DATA_SET
    path = str(local) if local is not None and local.is_dir() else DATA_SET
    try:
        pages = datasets.load_dataset(path, CONFIG, split="test")["page"]
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"no text to measure forgetting on: {type(error).__name__}: {error}",
            where=path,
            expected=f"{DATA_SET}, {CONFIG}, split test",
            hint="name a folder with a copy of it in score.data_folder, or set forgetting = false",
        ) from error
    return [str(page) for page in pages]


def score_forgetting(
    likelihood: Likelihood, tokenizer: Any, pages: list[str], place: Place, tokens: int
) -> Score:
    """Bits per byte of the first ``tokens`` tokens of each article, an article being an item.

    The first token of an article follows the end-of-text token. Articles longer than the model's
    context are scored in windows. What matters is the change from
    the base, which the report pairs by article.
    """
    start = tokenizer.bos_token_id
    start = tokenizer.eos_token_id if start is None else start
    sequences, sizes = [], []
    for page in pages:
        ids = tokenizer.encode(page, add_special_tokens=False)[:tokens]
        sequences.append((np.array([start, *ids]), np.array([False] + [True] * len(ids))))
        sizes.append(len(tokenizer.decode(ids).encode()))
    context = tokens + 2 if likelihood.context is None else likelihood.context
    window = min(tokens + 2, context)
    stride = window - 1 if window == tokens + 2 else max(1, window // 2)
    losses = negative_log_likelihoods(likelihood, sequences, window, stride)
    names = [page.strip().split("\n", 1)[0].strip(" =") or str(i) for i, page in enumerate(pages)]
    names = [f"{index} {name}" for index, name in enumerate(names)]
    bits = np.array([loss.sum() for loss in losses]) / math.log(2)
    asked: dict[str, JsonValue] = {
        "tokens_per_article": tokens,
        "data": f"{DATA_SET} {CONFIG} test",
        **({} if window == tokens + 2 else {"window": window, "stride": stride}),
    }
    return place.write(
        BITS_PER_BYTE,
        Items(names, names, bits, np.array(sizes, float)),
        asked=asked,
        details={**asked, **likelihood.details},
    )
