"""Trained shards: weights that are all trained, spread over devices by torch's FSDP2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.weights.sharded import COMPARED, compare, container, probe

if TYPE_CHECKING:
    from torch import Tensor, nn

AROUND = "_harness_around"  # marks what stands around the layers, spread apart from them


class TrainedShards:
    """Spreads one layer after the other, then what stands around them; gradients are spread too.

    FSDP2 (``fully_shard``) gathers a layer before it is used and lets go of it afterwards; in the
    backward pass it adds up the layer's gradients over all devices and leaves each its part of
    them. Embeddings and output layer are spread likewise, but where one tensor is both: FSDP2
    takes a weight for one module, so that one stays whole on every device.
    """

    def __init__(self, device: str) -> None:
        """Spread over all processes that have joined, each with its ``device``."""
        self._device = device
        self._names: list[str] = []
        self._whole: list[Tensor] | None = None
        self.difference: float | None = None

    def take(self, model: Any, name: str) -> None:
        """Spread the layer ``name``; the first few wait for each other, to be asked whole."""
        self._names.append(name)
        model.get_submodule(name).requires_grad_(requires_grad=True)
        if self._whole is not None:
            spread(model.get_submodule(name), self._device)
            return
        layers = model.get_submodule(container(name))
        if len(self._names) < min(COMPARED, len(layers)):
            return
        first = layers[:COMPARED]
        self._whole = [*probe(model, first, layers, name), *_take_gradients(first)]
        for one in self._names:
            spread(model.get_submodule(one), self._device)

    def close(self, model: Any) -> None:
        """Spread the rest, and compare the first layers with what they gave whole.

        Raises:
            RunError: they compute something else.
        """
        layers = model.get_submodule(container(self._names[0]))
        body = model.get_submodule(container(container(self._names[0])))
        head = model.get_output_embeddings()
        model.requires_grad_(requires_grad=True)
        inside = {id(weight) for weight in body.parameters()}
        shared = {weight for weight in head.parameters() if id(weight) in inside}
        if not shared:
            spread(head, self._device)
            head.__dict__[AROUND] = True
        spread(body, self._device, ignored_params=shared)
        body.__dict__[AROUND] = True
        # Room is made at the first pass: in inference mode it would be of no use to training.
        probe(model, layers, layers, self._names[0], within=body)
        model.zero_grad(set_to_none=True)
        found = probe(model, layers[:COMPARED], layers, self._names[0], within=body)
        found += _take_gradients(layers[:COMPARED])
        model.zero_grad(set_to_none=True)
        self.difference = compare(self._whole or [], found, model.dtype)
        self._whole = []


def spread(module: nn.Module, device: str, **options: Any) -> None:
    """Spread those weights of ``module`` that are not yet, over all processes.

    Gradients are added up, not averaged: the loss is divided by the tokens of all devices.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    everyone = dist.group.WORLD
    assert everyone is not None  # noqa: S101 - the devices have joined
    mesh = DeviceMesh.from_group(everyone, device)
    made: Any = fully_shard(module, mesh=mesh, reshard_after_forward=True, **options)
    made.set_force_sum_reduction_for_comms(True)
    made.set_gradient_divide_factor(1.0)


@contextmanager
def around_whole(model: nn.Module) -> Iterator[None]:
    """Keep what is around the layers of ``model`` whole meanwhile, if it is spread.

    Nothing but a pass through all layers needs the other devices then.
    """
    around: list[Any] = [one for one in model.modules() if AROUND in one.__dict__]
    for one in around:
        one.set_reshard_after_forward(False, recurse=False)
        one.unshard()
    try:
        yield
    finally:
        for one in around:
            one.set_reshard_after_forward(True, recurse=False)
            one.reshard()


def is_spread(weight: Tensor) -> bool:
    """Whether each device has only its part of ``weight``: torch's DTensor, which is not loaded."""
    return hasattr(weight, "device_mesh")


def own_part(weight: Any) -> Tensor:
    """What this device has of ``weight``, in the same memory; all of it where it is whole."""
    found: Tensor = weight.to_local() if is_spread(weight) else weight
    return found


def whole(weight: Any, part: Tensor | None = None) -> Tensor:
    """All of ``weight``, or of a tensor that is spread like it and of which this is the ``part``.

    Every device must ask.
    """
    if not is_spread(weight):
        return weight if part is None else part
    if part is not None:
        from torch.distributed.tensor import DTensor

        weight = DTensor.from_local(
            part,
            weight.device_mesh,
            weight.placements,
            run_check=False,
            shape=weight.shape,
            stride=weight.stride(),
        )
    found: Tensor = weight.full_tensor()
    return found


def cut(weight: Any, found: Tensor) -> Tensor:
    """This device's part of ``found``, which has the shape of all of ``weight``."""
    if not is_spread(weight):
        return found
    parts = found.chunk(weight.device_mesh.size())  # as FSDP2 cuts
    rank = weight.device_mesh.get_local_rank()
    return parts[rank].clone() if rank < len(parts) else found[:0].clone()


def _take_gradients(layers: nn.Module) -> list[Tensor]:
    """The gradients of all weights, added up over the devices; none is left in place."""
    import torch.distributed as dist

    found = []
    for weight in layers.parameters():
        gradient = weight.grad
        weight.grad = None
        if gradient is not None:
            count = dist.get_world_size() if is_spread(gradient) else 1
            found.append(whole(gradient).detach() / count)  # each has seen the same tokens
    return found
