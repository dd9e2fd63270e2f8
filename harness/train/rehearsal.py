"""Rehearsal: a training step on shapes alone, to see how many bytes live at once."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.quantize.scheme import schemes
from harness.spec.plan import Plan
from harness.weights.depth import SHALLOW, names_layers
from harness.weights.phantom import phantom_model
from harness.weights.shape import transformers_config

RECOMPUTATION = "_gradient_checkpointing_func"  # transformers' own slot
ALLOCATION_BYTES = 512  # CUDA's caching allocator rounds up to this


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's is untyped
    """Counts the bytes of every storage that operations make, until it is freed.

    ``known`` storages (weights) are not counted. ``peak`` is the most at once since the last
    :meth:`reset_peak`.
    """

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {_key(tensor) for tensor in known}
        self._sizes: dict[int, int] = {}
        self.live = 0
        self.peak = 0

    def reset_peak(self) -> None:
        """Begin a new peak at what lives now."""
        self.peak = self.live

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run ``func`` and take its results into account."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._take(leaf)
        self.peak = max(self.peak, self.live + _workspace_bytes(func, args))
        return result

    def _take(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = _key(tensor)
        if key in self._known or key in self._sizes:
            return
        size = -(-storage.nbytes() // ALLOCATION_BYTES) * ALLOCATION_BYTES
        self._sizes[key] = size
        self.live += size
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.live -= self._sizes.pop(key, 0)


def _key(tensor: Tensor) -> int:
    """The address of the tensor's storage."""
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - as torch's own MemTracker


def _workspace_bytes(func: Any, args: Sequence[Any]) -> int:
    """What a kernel allocates for itself and frees before it returns."""
    name = str(func)
    if name.startswith("aten.logsumexp"):  # exp(x - max)
        counted: Tensor = args[0]
        return counted.numel() * counted.element_size()
    if name.startswith("aten."):
        return 0
    return sum(scheme.workspace_bytes(name, args) for scheme in schemes())


class _Attention(torch.autograd.Function):
    """A fused attention kernel: saves its inputs, output and the log-sum of each row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        batch, heads, tokens, _ = query.shape
        # kernels write [batch, tokens, heads, width] and return it transposed
        out = query.new_empty(batch, tokens, heads, value.shape[-1]).transpose(1, 2)
        sums = query.new_empty(batch, heads, tokens, dtype=torch.float32)
        bias = mask.to(query.dtype) if mask is not None and mask.dtype == torch.bool else mask
        ctx.save_for_backward(query, key, value, out, sums, bias)
        return out

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value = ctx.saved_tensors[:3]
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None


# What autocast does on a GPU, as far as models ask for it: products in its dtype, and what would
# lose by that in float32. The meta device has no autocast of its own.
IN_ITS_DTYPE = {
    functional.conv1d,
    functional.linear,
    functional.scaled_dot_product_attention,
    torch.addmm,
    torch.baddbmm,
    torch.bmm,
    torch.einsum,
    torch.matmul,
    torch.mm,
    Tensor.__matmul__,
    Tensor.bmm,
    Tensor.matmul,
    Tensor.mm,
}
IN_FLOAT32 = {
    functional.cross_entropy,
    functional.layer_norm,
    functional.log_softmax,
    functional.rms_norm,
    functional.softmax,
    torch.exp,
    torch.layer_norm,
    torch.logsumexp,
    torch.pow,
    torch.rsqrt,
    torch.softmax,
    Tensor.__pow__,
    Tensor.exp,
    Tensor.pow,
    Tensor.rsqrt,
    Tensor.softmax,
}
_CASTING: ContextVar[torch.dtype | None] = ContextVar("casting", default=None)


@contextmanager
def casting(dtype: torch.dtype | None) -> Iterator[None]:
    """Have tensors be cast as under autocast to ``dtype``; null: not."""
    token = _CASTING.set(dtype)
    try:
        yield
    finally:
        _CASTING.reset(token)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    lower = isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64
    return value.to(dtype) if lower else value


class StandIns(TorchFunctionMode):
    """Answers for the meta device where it has no data or takes another kernel than a real one.

    Questions about data (is every row whole? is nothing packed?) are answered with yes: masks are
    given ready-made. Attention is fused. Tensors are cast within :func:`casting`.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run ``func``, or the stand-in."""
        if func is Tensor.__bool__:
            return True
        given = dict(kwargs or {})
        lower = _CASTING.get()
        if lower is not None and (func in IN_ITS_DTYPE or func in IN_FLOAT32):
            dtype = lower if func in IN_ITS_DTYPE else torch.float32
            args = tuple(_cast(one, dtype) for one in args)
            given = {name: _cast(one, dtype) for name, one in given.items()}
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **given)
        query, key, value = args[:3]
        mask = given.get("attn_mask", args[3] if len(args) > 3 else None)
        return _Attention.apply(query, key, value, mask)  # type: ignore[no-untyped-call]


class _Recomputed(torch.autograd.Function):
    """A checkpointed layer: keeps its input, runs again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, layer: Any, hidden: Tensor, *rest: Any) -> Tensor:
        ctx.layer, ctx.rest = layer, rest
        ctx.save_for_backward(hidden)
        with torch.no_grad():
            return _first(layer(hidden, *rest))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (hidden,) = ctx.saved_tensors
        again = hidden.detach().requires_grad_()
        with torch.enable_grad(), StandIns():
            out = _first(ctx.layer(again, *ctx.rest))
        torch.autograd.backward(out, grads[0])
        return None, again.grad, *(None for _ in ctx.rest)


def _first(output: Any) -> Tensor:
    first: Tensor = output[0] if isinstance(output, tuple) else output
    return first


def checkpoint_layers(model: nn.Module) -> None:
    """Switch recomputation on in every layer of ``model`` that transformers can checkpoint."""
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = True  # type: ignore[assignment]
            setattr(module, RECOMPUTATION, _recompute)


def _recompute(layer: Any, hidden: Tensor, *rest: Any) -> Tensor:
    result: Tensor = _Recomputed.apply(layer, hidden, *rest)  # type: ignore[no-untyped-call]
    return result


@contextmanager
def rehearsing(model: nn.Module, others: Sequence[Tensor] = ()) -> Iterator[LiveBytes]:
    """Count what the body allocates, the model's own weights and ``others`` left out."""
    known = [*model.parameters(), *model.buffers(), *_constants(model), *others]
    with _quiet(), LiveBytes(known) as live, StandIns():
        yield live


def _constants(model: nn.Module) -> Iterator[Tensor]:
    """Quantization constants that are neither parameters nor buffers."""
    known = list(schemes())
    for module in model.modules():
        for scheme in known:
            yield from scheme.constants(module)


def rehearse(plan: Plan, measure: Callable[[Any], tuple[int, ...]]) -> list[int]:
    """What ``measure`` finds on the planned model without weights, at the model's whole depth.

    Every layer adds the same bytes, so two shallow models give the line, unless the adapter has
    something else on some layers.
    """
    depth = int(transformers_config(plan.model).num_hidden_layers)
    if depth <= max(SHALLOW) or names_layers(plan.adapter):
        return list(measure(phantom_model(plan, depth)))
    peaks = [measure(phantom_model(plan, layers)) for layers in SHALLOW]
    further = (depth - SHALLOW[1]) // (SHALLOW[1] - SHALLOW[0])
    return [high + further * (high - low) for low, high in zip(*peaks, strict=True)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Bitsandbytes says at every call that int8 products cast their input."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
