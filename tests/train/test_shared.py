"""Shared: gradients are added up, and weights that drift apart are noticed, on two ranks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.errors import RunError
from harness.parallel.ranks import Alone
from harness.train import shared
from harness.train.shared import add_up_gradients, check_alike, seed_step, seed_update


class Meeting:
    """Where two threads exchange things, as two processes do over a network."""

    def __init__(self, count: int = 2) -> None:
        self.barrier = threading.Barrier(count, timeout=600)
        self.things: list[Any] = [None] * count


@dataclass
class Thread:
    """One rank of a meeting."""

    index: int
    meeting: Meeting

    @property
    def count(self) -> int:
        return len(self.meeting.things)

    def gather(self, thing: Any) -> list[Any]:
        self.meeting.things[self.index] = thing
        self.meeting.barrier.wait()
        found = list(self.meeting.things)
        self.meeting.barrier.wait()
        return found

    def hand_out(self, thing: Any) -> Any:
        return self.gather(thing)[0]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            tensor.copy_(torch.stack(self.gather(tensor.clone())).sum(dim=0))


def together(work: Callable[[Thread], Any]) -> list[Any]:
    """What the same work gives on two ranks."""
    meeting = Meeting()
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, [Thread(0, meeting), Thread(1, meeting)]))


def model(value: float = 1.0) -> nn.ParameterDict:
    return nn.ParameterDict(
        {
            "a": nn.Parameter(torch.full((3,), value)),
            "b": nn.Parameter(torch.full((2, 2), value, dtype=torch.float64)),
            "c": nn.Parameter(torch.full((1,), value)),
        }
    )


def test_gradients_are_the_sums_over_all_ranks() -> None:
    def work(rank: Thread) -> tuple[nn.ParameterDict, Tensor]:
        own = model()
        for parameter in own.values():
            parameter.grad = torch.full_like(parameter, 1.0 + rank.index)
        loss = torch.tensor([10.0 * (1 + rank.index)])
        add_up_gradients(list(own.values()), rank, loss)
        return own, loss

    for own, loss in together(work):
        assert all((parameter.grad == 3.0).all() for parameter in own.values())
        assert loss.item() == 30.0, "what goes with them is added up too"


def test_a_gradient_that_only_one_rank_has_counts_and_one_that_none_has_stays_away() -> None:
    def work(rank: Thread) -> nn.ParameterDict:
        own = model()
        if rank.index == 1:
            own["a"].grad = torch.full((3,), 5.0)
        add_up_gradients(list(own.values()), rank)
        return own

    for own in together(work):
        assert own["a"].grad is not None
        assert own["a"].grad.tolist() == [5.0] * 3
        assert own["b"].grad is None


def test_alone_nothing_is_touched() -> None:
    own = model()
    add_up_gradients(list(own.values()), Alone())
    assert own["a"].grad is None
    check_alike(own, Alone(), 0, when="before training")


def test_many_gradients_go_in_pieces_of_one_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "PIECE_BYTES", 16)
    sizes: list[list[int]] = [[], []]

    class Counting(Thread):
        def add_up(self, tensors: Sequence[Tensor]) -> None:
            sizes[self.index] += [len(tensor) for tensor in tensors]
            super().add_up(tensors)

    def work(rank: Thread) -> None:
        lengths, kinds = (2, 2, 2, 100, 1, 2), [torch.float32] * 6
        kinds[4] = torch.float64
        own = [
            nn.Parameter(torch.zeros(length, dtype=kind))
            for length, kind in zip(lengths, kinds, strict=True)
        ]
        for parameter in own:
            parameter.grad = torch.ones_like(parameter)
        add_up_gradients(own, Counting(rank.index, rank.meeting))
        assert all((parameter.grad == 2).all() for parameter in own)

    together(work)
    assert sizes[0] == sizes[1] == [6, 4, 2, 100, 1, 2], "who has one, then piece by piece"


def test_equal_weights_pass() -> None:
    assert together(lambda rank: check_alike(model(), rank, 3, when="after training")) == [None] * 2


def test_one_flipped_bit_is_seen_by_both() -> None:
    def work(rank: Thread) -> str:
        own = model()
        if rank.index == 1:
            own["b"].data.view(torch.int64)[0, 0] ^= 1
        with pytest.raises(RunError) as caught:
            check_alike(own, rank, 3, when="after training")
        return str(caught.value)

    for text in together(work):
        assert "the weights of device 1 are not those of device 0: 1 differ" in text
        assert "first of all b" in text
        assert "after training" in text


def test_ranks_that_have_done_other_steps_do_not_go_on() -> None:
    def work(rank: Thread) -> str:
        with pytest.raises(RunError) as caught:
            check_alike(model(), rank, 3 + rank.index, when="before training")
        return str(caught.value)

    for text in together(work):
        assert "device 1 has done 4 steps, device 0 3" in text


def drawn(seed: Callable[[], None]) -> list[float]:
    seed()
    return torch.rand(3).tolist()


def test_each_rank_draws_numbers_of_its_own_in_a_step_and_common_ones_in_an_update() -> None:
    first, second = Thread(0, Meeting()), Thread(1, Meeting())
    own = [drawn(lambda rank=rank: seed_step(7, 3, rank)) for rank in (first, second)]  # type: ignore[misc]
    assert own[0] != own[1]
    assert own[0] == drawn(lambda: seed_step(7, 3, first)), "a resumed step draws them again"
    assert own[0] != drawn(lambda: seed_step(7, 4, first))
    assert drawn(lambda: seed_update(7, 3, first)) == drawn(lambda: seed_update(7, 3, second))


def test_one_device_goes_on_drawing_as_it_did() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(4).tolist()
    torch.manual_seed(5)
    seed_step(7, 3, Alone())
    seed_update(7, 3, Alone())
    assert torch.rand(4).tolist() == wanted


def test_the_bits_of_a_weight_are_added_up_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(1001).to(torch.bfloat16)
    whole = shared._sum(weight)
    monkeypatch.setattr(shared, "PIECE_BYTES", 64)
    assert shared._sum(weight) == whole
    weight[700] *= 2
    assert shared._sum(weight) != whole
