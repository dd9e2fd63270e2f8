"""Lean: LoRA's share of a layer in few operations, while the engine runs a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, float32, nn
from torch.nn import functional

from harness.quantize.float8 import has_triton

PARTS = ("lora_A", "lora_B")
MOST_ROWS, LARGEST_RANK = 64, 64  # for which kernels of our own are faster than torch's


class LeanAdapters:
    """Lets LoRA layers add their share to the frozen product in place.

    PEFT casts the input of each layer, scales and adds in passes of their own, and asks each layer
    at each call how it is set: in 210 layers of a small model more work than the products, in the
    host and on the device. Here layers with one input share its cast, and the sum is rounded once.
    Where few rows are continued on a GPU, two kernels do all of it.
    """

    def __init__(self, model: Any) -> None:
        """Find the layers that only add a product of two matrices; others stay as they are."""
        kinds = _kinds() if hasattr(model, "peft_config") else ()
        found = [module for module in model.modules() if _is_plain(module, kinds)]
        self._layers = [(layer, list(layer.active_adapters)) for layer in found]
        self._given: Tensor | None = None
        self._cast: Tensor | None = None

    @contextmanager
    def used(self) -> Iterator[int]:
        """While this is open, they do; yields how many."""
        for layer, names in self._layers:
            vars(layer)["forward"] = partial(self._forward, layer, names)
        try:
            yield len(self._layers)
        finally:
            for layer, _ in self._layers:
                del vars(layer)["forward"]
            self._given = self._cast = None

    def _forward(self, layer: Any, names: list[str], x: Tensor, *more: Any, **asked: Any) -> Tensor:
        changed = layer.disable_adapters or layer.merged or layer.active_adapters != names
        if changed or more or asked:
            found: Tensor = type(layer).forward(layer, x, *more, **asked)
            return found
        (name,) = names
        down, up = (getattr(layer, part)[name].weight for part in PARTS)
        product: Tensor = layer.base_layer(x)
        scaling: float = layer.scaling[name]
        if has_triton() and _suits_kernels(product, x, down, up):
            from harness.score.adapter_kernels import add_share_

            return add_share_(product, x, down, up, scaling)
        h = functional.linear(self._as(x, down), down)
        return _add_product(product, h, up, scaling)

    def _as(self, x: Tensor, weight: Tensor) -> Tensor:
        """The input in the adapter's dtype; the next layers that read it find it cast."""
        if x.dtype == weight.dtype:
            return x
        if x is not self._given or self._cast is None:
            self._given, self._cast = x, x.to(weight.dtype)
        return self._cast


def _suits_kernels(product: Tensor, x: Tensor, down: Tensor, up: Tensor) -> bool:
    """Whether all lie on a GPU as the kernels read them, and PEFT rounds nothing between them."""
    rank, width = down.shape
    if not product.is_cuda or x.numel() > MOST_ROWS * width or rank > LARGEST_RANK:
        return False
    exact = down.dtype == up.dtype == float32
    return exact and all(one.is_contiguous() for one in (product, x, down, up))


def _add_product(product: Tensor, h: Tensor, up: Tensor, scaling: float) -> Tensor:
    """``product + scaling * h @ up.T``, summed in the wider dtype and rounded to the product's."""
    if product.is_cuda:  # one kernel casts, scales, adds and rounds
        return product.add_(functional.linear(h, up), alpha=scaling)
    wide = product.to(up.dtype).flatten(0, -2)
    return wide.addmm_(h.flatten(0, -2), up.T, alpha=scaling).view(product.shape).to(product.dtype)


def _kinds() -> tuple[type, ...]:
    """PEFT's layers whose forward pass is known here."""
    from peft.tuners.lora import layer

    found: list[type] = [layer.Linear]
    try:
        from peft.tuners.lora.bnb import Linear4bit
    except ImportError:  # no bitsandbytes
        return tuple(found)
    return (*found, Linear4bit)


def _is_plain(module: Any, kinds: tuple[type, ...]) -> bool:
    """Whether the layer adds the product of two matrices and does nothing else."""
    if type(module) not in kinds or "forward" in vars(module) or len(module.active_adapters) != 1:
        return False
    (name,) = module.active_adapters
    if name not in module.lora_A or name in module.lora_variant:
        return False
    dropout = module.lora_dropout[name]
    if dropout.training and not isinstance(dropout, nn.Identity):
        return False
    return all(_is_bare(getattr(module, part)[name]) for part in PARTS)


def _is_bare(matrix: Any) -> bool:
    """Whether it is an undivided matrix without bias or hooks."""
    hooks = (matrix._forward_hooks, matrix._forward_pre_hooks)  # noqa: SLF001 - nothing public tells
    whole = type(matrix) is nn.Linear and type(matrix.weight.data) is Tensor
    return whole and matrix.bias is None and not any(hooks) and matrix.weight.is_floating_point()
