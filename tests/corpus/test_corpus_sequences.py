"""Rows: nothing is lost uncounted, and packed conversations do not see each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.corpus.corpus import build_corpus
from harness.corpus.render import Renderer
from harness.corpus.sequences import (
    IGNORED,
    TrainingRow,
    TrainingRows,
    best_fit_decreasing,
    make_training_rows,
)
from harness.corpus.tokens import TokenSequence
from harness.spec.suite import CorpusSpec
from harness.spec.variant import Training


def attention_mask_for(lengths: Sequence[int], width: int | None = None) -> np.ndarray:
    """Which token may see which: [width, width] bool, causal inside each conversation only.

    Padding, from ``sum(lengths)`` to ``width``, sees itself and nothing else. As a model input
    it needs two more dimensions, [batch, 1, width, width].
    """
    width = sum(lengths) if width is None else width
    numbers = np.repeat(np.arange(len(lengths)), lengths)
    pads = np.arange(len(lengths), len(lengths) + width - len(numbers))
    numbers = np.concatenate([numbers, pads])
    same: np.ndarray = numbers[:, None] == numbers[None, :]
    return np.tril(same)


def sequence(name: str, *turns: tuple[int, int]) -> TokenSequence:
    """Turns of (context tokens, reply tokens); ids count up from 1."""
    mask = [on for context, reply in turns for on in [False] * context + [True] * reply]
    ids = np.arange(1, len(mask) + 1, dtype=np.int32)
    return TokenSequence(name, name, ids, np.array(mask))


def rows_of(*sequences: TokenSequence, **choices: Any) -> TrainingRows:
    return make_training_rows(sequences, Training(**choices))


def test_a_conversation_that_fits_is_one_row() -> None:
    rows = rows_of(sequence("a", (2, 3)), sequence_length=5)
    (row,) = rows.rows
    assert row.input_ids.tolist() == [1, 2, 3, 4, 5]
    assert row.labels.tolist() == [IGNORED, IGNORED, 3, 4, 5]
    assert row.position_ids.tolist() == [0, 1, 2, 3, 4]
    assert row.lengths == (5,)
    assert (rows.truncated_tokens, rows.dropped_conversations) == (0, 0)


@pytest.mark.parametrize("overflow", ["cut", "drop", "window"])
def test_prompts_in_the_loss_change_the_labels_and_not_the_rows(overflow: str) -> None:
    given = [sequence("a", (2, 3), (4, 2)), sequence("b", (3, 20)), sequence("c", (2, 3))]
    choices = {"sequence_length": 9, "overflow": overflow, "packing": True}
    replies = rows_of(*given, **choices)
    everything = rows_of(*given, **choices, loss_on="everything")
    assert replies.rows
    for row, same in zip(replies.rows, everything.rows, strict=True):
        assert row.input_ids.tolist() == same.input_ids.tolist()
        wanted = np.where(row.position_ids > 0, row.input_ids, IGNORED)
        assert same.labels.tolist() == wanted.tolist()
    learned = [
        sum((row.labels != IGNORED).sum() for row in found.rows) for found in (replies, everything)
    ]
    assert learned[0] < learned[1]
    counts = [
        (r.truncated_tokens, r.dropped_conversations, r.cut_conversations, r.cut_replies)
        for r in (replies, everything)
    ]
    assert counts[0] == counts[1]


def test_cut_keeps_whole_turns() -> None:
    rows = rows_of(sequence("a", (2, 3), (2, 3)), sequence_length=9)
    assert rows.rows[0].input_ids.tolist() == [1, 2, 3, 4, 5]
    assert (rows.truncated_tokens, rows.cut_conversations, rows.cut_replies) == (5, 1, 0)


def test_cut_takes_the_start_of_a_reply_that_does_not_fit() -> None:
    rows = rows_of(sequence("a", (2, 30)), sequence_length=9)
    assert rows.rows[0].labels.tolist() == [IGNORED, IGNORED, 3, 4, 5, 6, 7, 8, 9]
    assert (rows.truncated_tokens, rows.cut_conversations, rows.cut_replies) == (23, 1, 1)


def test_cut_drops_what_has_no_reply_in_reach() -> None:
    rows = rows_of(sequence("a", (9, 3)), sequence_length=9)
    assert rows.rows == ()
    assert (rows.truncated_tokens, rows.dropped_conversations) == (12, 1)


def test_drop_leaves_long_conversations_out() -> None:
    rows = rows_of(sequence("a", (2, 9)), sequence("b", (2, 2)), sequence_length=9, overflow="drop")
    assert len(rows.rows) == 1
    assert (rows.truncated_tokens, rows.dropped_conversations) == (11, 1)


@pytest.mark.parametrize("limit", [2, 3, 7, 19, 20, 21])
def test_windows_predict_every_assistant_token_once(limit: int) -> None:
    whole = sequence("a", (3, 5), (4, 8))
    rows = rows_of(whole, sequence_length=limit, overflow="window")
    predicted = [int(t) for row in rows.rows for t in row.labels if t != IGNORED]
    assert sorted(predicted) == whole.input_ids[whole.loss_mask].tolist()
    assert all(len(row.input_ids) <= limit for row in rows.rows)
    seen = {int(token) for row in rows.rows for token in row.input_ids}
    assert rows.truncated_tokens == len(whole.input_ids) - len(seen)


def test_packing_restarts_positions_and_keeps_labels() -> None:
    rows = rows_of(
        sequence("a", (2, 2)),
        sequence("b", (1, 2)),
        sequence("c", (2, 6)),
        sequence_length=8,
        packing=True,
    )
    assert [row.lengths for row in rows.rows] == [(8,), (4, 3)]
    packed = rows.rows[1]
    assert packed.position_ids.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert packed.labels.tolist() == [IGNORED, IGNORED, 3, 4, IGNORED, 2, 3]


def test_best_fit_decreasing_fills_the_fullest_row_that_has_room() -> None:
    assert best_fit_decreasing([4, 8, 1, 4, 2, 1], 10) == [[1, 4], [0, 3, 2, 5]]
    assert best_fit_decreasing([], 10) == []


def test_attention_stays_inside_conversations_and_causal() -> None:
    mask = attention_mask_for((2, 1), width=5)
    assert mask.astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]


@pytest.fixture(scope="module")
def real_sequences(oasst: Path, chatml_tokenizer: Any) -> list[TokenSequence]:
    source = str(oasst / "oasst1-en-validation.trees.jsonl.gz")
    corpus = build_corpus(CorpusSpec(source=source, policy="all_paths"))
    return list(Renderer(chatml_tokenizer).encode_all(corpus.train))


def test_packed_real_conversations_fill_2048_to_95_percent(
    real_sequences: list[TokenSequence],
) -> None:
    rows = make_training_rows(real_sequences, Training(sequence_length=2048, packing=True))
    assert rows.tokens >= 0.95 * len(rows.rows) * rows.sequence_length


@pytest.mark.parametrize("overflow", ["cut", "drop", "window"])
@pytest.mark.parametrize("packing", [False, True])
def test_every_real_token_is_in_a_row_or_counted(
    real_sequences: list[TokenSequence], overflow: str, packing: bool
) -> None:
    rows = rows_of(*real_sequences, sequence_length=300, overflow=overflow, packing=packing)
    total = sum(len(one.input_ids) for one in real_sequences)
    repeated = sum(len(row.lengths) for row in rows.rows) if overflow == "window" else 0
    assert total - repeated <= rows.tokens + rows.truncated_tokens <= total + repeated
    assert all(sum(row.lengths) == len(row.input_ids) <= 300 for row in rows.rows)


def _losses(model: Any, row: TrainingRow, allowed: np.ndarray) -> np.ndarray:
    """Per-token losses of a row, [tokens - 1], 0 where there is no label."""
    import torch

    visible = torch.from_numpy(allowed)[None, None]
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor(row.input_ids[None], dtype=torch.long),
            position_ids=torch.tensor(row.position_ids[None], dtype=torch.long),
            attention_mask=torch.zeros(visible.shape).masked_fill(~visible, -1e30),
        ).logits
    labels = torch.tensor(row.labels[1:], dtype=torch.long)
    loss = torch.nn.functional.cross_entropy(
        logits[0, :-1], labels, ignore_index=IGNORED, reduction="none"
    )
    return loss.numpy()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["llama", "phi"])
def test_packed_and_unpacked_losses_are_equal(
    real_sequences: list[TokenSequence], family: str, attention: str
) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, vocab_size=3200, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, initializer_range=0.2,
        attn_implementation=attention,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval().float()
    some = [one for one in real_sequences if len(one.input_ids) < 250][:6]
    packed = make_training_rows(some, Training(sequence_length=512, packing=True))
    alone = make_training_rows(some, Training(sequence_length=512))
    wanted = {
        row.input_ids.tobytes(): _losses(model, row, attention_mask_for(row.lengths))
        for row in alone.rows
    }
    leak = 0.0
    for row in packed.rows:
        tight = _losses(model, row, attention_mask_for(row.lengths))
        leaky = _losses(model, row, attention_mask_for((sum(row.lengths),)))
        end = 0
        for length in row.lengths:
            start, end = end, end + length
            own = wanted[row.input_ids[start:end].tobytes()]
            np.testing.assert_allclose(tight[start : end - 1], own, atol=1e-4, rtol=0)
            leak = max(leak, float(np.abs(leaky[start : end - 1] - own).max()))
    assert leak > 0.01, "the check would not notice a leak"
