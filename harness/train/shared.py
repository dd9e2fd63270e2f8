"""Shared: the gradients and weights of a training that several devices share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from harness.errors import RunError
from harness.parallel.ranks import Ranks
from harness.weights.sharded import own_parameters

# Gradients, and the bits of weights, are added up in pieces of this size, which are copied once.
PIECE_BYTES = 64 << 20
STEPS_APART = 1_000_003  # a prime, so that steps and ranks do not give the same seed


def add_up_gradients(parameters: Sequence[nn.Parameter], ranks: Ranks, *also: Tensor) -> None:
    """Replace every gradient, and the tensors ``also``, by its sum over all ranks.

    A parameter that no rank has a gradient of keeps none; where some rank has one, the others
    count as zero.
    """
    if ranks.count == 1:
        return
    device = parameters[0].device
    present = torch.tensor([float(p.grad is not None) for p in parameters], device=device)
    ranks.add_up([present, *also])
    shared = [p for p, count in zip(parameters, present.tolist(), strict=True) if count]
    for parameter in shared:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for piece in _pieces([p.grad for p in shared if p.grad is not None]):
        flat = torch.cat([gradient.reshape(-1) for gradient in piece])
        ranks.add_up([flat])
        parts = torch.split(flat, [gradient.numel() for gradient in piece])
        for gradient, part in zip(piece, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _pieces(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbouring gradients of one dtype, at most ``PIECE_BYTES`` of them or a single one."""
    piece: list[Tensor] = []
    size = 0
    for gradient in gradients:
        fits = size + gradient.nbytes <= PIECE_BYTES
        if piece and not (fits and gradient.dtype == piece[0].dtype):
            yield piece
            piece, size = [], 0
        piece.append(gradient)
        size += gradient.nbytes
    if piece:
        yield piece


def seed_step(seed: int, step: int, ranks: Ranks) -> None:
    """Let each rank draw its own numbers (dropout) from here on; nothing where it is alone.

    What is drawn depends on seed, step and rank alone, so a resumed training draws it again.
    """
    if ranks.count > 1:
        torch.manual_seed((seed * STEPS_APART + step) * ranks.count + ranks.index)


def seed_update(seed: int, step: int, ranks: Ranks) -> None:
    """Let all ranks draw the same numbers: those of an optimizer that draws any."""
    if ranks.count > 1:
        torch.manual_seed(seed * STEPS_APART + step)


def check_alike(model: nn.Module, ranks: Ranks, done: int, *, when: str) -> None:
    """Refuse to go on where ranks have other weights, or other steps ``done``, than the first.

    Raises:
        RunError: they differ.
    """
    if ranks.count == 1:
        return
    found = ranks.gather((done, _sums(model)))
    for rank, (steps, sums) in enumerate(found):
        if steps != found[0][0]:
            raise RunError(
                f"device {rank} has done {steps} steps, device 0 {found[0][0]}", where=when
            )
        different = [name for name, value in sums.items() if value != found[0][1].get(name)]
        if different:
            raise RunError(
                f"the weights of device {rank} are not those of device 0: {len(different)} differ, "
                f"first of all {different[0]}",
                where=when,
                hint="please report it; one device alone has no such trouble",
            )


def _sums(model: nn.Module) -> dict[str, int]:
    """A sum over the bits of every parameter, so that one flipped bit is seen.

    Tensors of a library's own kind, whose bits lie elsewhere, are left out; they are frozen. So
    are weights that are spread over the ranks.
    """
    found = {name: parameter.data for name, parameter, _ in own_parameters(model)}
    return {name: _sum(weight) for name, weight in found.items() if type(weight) is Tensor}


def _sum(weight: Tensor) -> int:
    bits = weight.contiguous().view(-1).view(torch.uint8)
    words = bits[: len(bits) // 4 * 4].view(torch.int32)
    # a GPU adds up a copy in 64 bits, which of a large head would take more memory than training
    parts = [part.sum(dtype=torch.int64) for part in torch.split(words, PIECE_BYTES // 8)]
    return int(sum(parts)) + int(bits[len(bits) // 4 * 4 :].sum(dtype=torch.int64))
