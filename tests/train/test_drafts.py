"""Gradients that are written to drafts first and added all at once."""

from __future__ import annotations

import pytest
import torch

from harness.train.collate import make_stream_batch
from harness.train.stream import drafts
from harness.train.stream.decoder import Decoder
from tests.train.tiny import tiny_model, tiny_rows

UNEVEN = {"rank_pattern": {"0.self_attn.q_proj": 8, "up_proj": 2}, "alpha_pattern": {"k_proj": 3}}


@pytest.mark.parametrize("family", ["llama", "phi"])
@pytest.mark.parametrize("lora", [{}, UNEVEN, {"target_modules": ["q_proj", "v_proj"]}])
def test_they_are_the_gradients_that_are_added_layer_by_layer(
    monkeypatch: pytest.MonkeyPatch, family: str, lora: dict[str, object]
) -> None:
    found = []
    for most in (drafts.DRAFT_BYTES, 0):
        monkeypatch.setattr(drafts, "DRAFT_BYTES", most)
        model = tiny_model(family, **lora).eval()
        decoder = Decoder(model, torch.float32)
        assert (decoder._drafts is not None) == (most > 0), "both ways are compared"
        decoder.refresh()
        for seed in (1, 2):  # the second micro-batch must not add the first again
            batch = make_stream_batch(tiny_rows(count=2 + seed))
            decoder.accumulate(batch, decoder.stream(batch), torch.ones(()))
        found.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    with_drafts, apart = found
    for name, wanted in apart.items():
        torch.testing.assert_close(with_drafts[name], wanted, atol=1e-5, rtol=1e-5)


def test_joined_gradients_are_complete_layer_by_layer() -> None:
    """So that several devices can add them up while the others are computed."""
    decoder = Decoder(tiny_model().eval(), torch.float32)
    decoder.refresh()
    batch = make_stream_batch(tiny_rows(count=2))
    joined = decoder.join_gradients()
    ends: list[tuple[int, torch.Tensor]] = []
    decoder.accumulate(
        batch,
        decoder.stream(batch),
        torch.ones(()),
        lambda start: ends.append((start, joined[start:].clone())),
    )
    assert [start for start, _ in ends] == sorted((start for start, _ in ends), reverse=True)
    for start, complete in ends:
        assert torch.equal(complete, joined[start:])
    assert joined.abs().sum() > 0
