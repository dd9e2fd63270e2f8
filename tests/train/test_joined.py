"""Gradients of several devices are added up while the first layers are still on their way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harness.parallel.ranks import Alone
from harness.train.joined import PIECES, JoinedGradients
from harness.train.stream.decoder import Decoder
from tests.train.tiny import SHAPE, tiny_model, tiny_rows


class Twins(Alone):
    """Two devices that have the same gradients; sums are there when they have been waited for."""

    count = 2

    def __init__(self) -> None:
        self.begun: list[int] = []

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            tensor.mul_(2)

    def begin_adding(self, tensor: Tensor) -> Callable[[], None]:
        self.begun.append(len(tensor))

        def wait() -> None:
            tensor.mul_(2)

        return wait


def test_pieces_are_sent_on_in_the_backward_pass_and_every_gradient_is_added_once() -> None:
    decoder = Decoder(tiny_model(), torch.float32)
    decoder.refresh()
    batch = decoder.batch(tiny_rows()[:2])
    flat, one = decoder.join_gradients(), torch.ones(())
    decoder.accumulate(batch, decoder.stream(batch), one)
    alone = flat.clone()
    assert alone.count_nonzero() > 0.9 * len(alone)

    twins = Twins()
    joined = JoinedGradients(flat, twins)
    for _ in range(2):
        flat.zero_()
        twins.begun.clear()
        decoder.accumulate(batch, decoder.stream(batch), one, joined.complete_from)
        layers = int(SHAPE["num_hidden_layers"])
        assert twins.begun == [len(flat) // layers] * layers, "a third is more than a quarter"
        total = torch.ones(())
        joined.finish(total)
        assert torch.equal(flat, 2 * alone)
        assert total == 2


def test_small_pieces_wait_for_more_and_a_recording_sends_all_at_its_end() -> None:
    twins, flat = Twins(), torch.ones(100)
    joined = JoinedGradients(flat, twins)
    for start in (95, 80, 70, 60, 1, 0):
        joined.complete_from(start)
    assert twins.begun == [30, 69]
    joined.finish()
    assert twins.begun == [30, 69, 1]
    assert len(twins.begun) <= PIECES
    twins.begun.clear()
    joined.finish()
    assert twins.begun == [100]
    assert flat.eq(4).all()
