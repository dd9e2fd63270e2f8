"""Ops: the steps of a decoder layer forwards and backwards, on the GPU by Triton, else by PyTorch.

Tensors are (tokens, channels): conversations follow each other in one stream without padding.
Functions whose name ends in ``_`` write into their arguments, to keep peak memory low.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness.quantize.scheme import Scheme
from harness.train.cross_entropy import cross_entropy_on_processor_
from harness.train.stream import attention_back

CAUSAL, NO_DEBUG_MASK = True, False


@dataclass(frozen=True)
class Stream:
    """One micro-batch: conversations one after another.

    ``starts`` holds cumulative lengths (int32, one more than conversations, some of which may be
    empty); none is longer than ``longest``. ``cos`` and ``sin`` are float32 (tokens, rotary
    channels).
    """

    starts: Tensor
    longest: int
    cos: Tensor
    sin: Tensor


def _kernels() -> Any:
    from harness.train.stream import kernels

    return kernels


def dequantize_into(out: Tensor, layer: Any, scheme: Scheme) -> None:
    """Write the weight of ``layer`` into ``out``, whose rows may be strided."""
    state = getattr(layer.weight, "quant_state", None)
    if out.is_cuda and fits_kernel(state, out.shape[1]):
        _kernels().dequantize_into(out, layer.weight.data, state)
    else:
        out.copy_(scheme.dequantize(layer))


def fits_kernel(state: Any, inputs: int) -> bool:
    """Whether kernels read such 4-bit weights: blocks of 64, a whole number of them in a row."""
    return state is not None and state.blocksize == 64 and inputs % 64 == 0


def rotate_(x: Tensor, stream: Stream, *, back: bool = False) -> None:
    """Rotary position embedding of (tokens, heads, size) ``x``, or its inverse, in place."""
    sign = -1.0 if back else 1.0
    if x.is_cuda:
        _kernels().rotate_(x, stream.cos, stream.sin, sign)
        return
    half = stream.cos.shape[1] // 2
    cos, sin = stream.cos[:, None, :half].to(x.dtype), stream.sin[:, None, :half].to(x.dtype) * sign
    first, second = x[..., :half].clone(), x[..., half : 2 * half].clone()
    x[..., :half] = first * cos - second * sin
    x[..., half : 2 * half] = second * cos + first * sin


def unrotate(source: Tensor, out: Tensor, stream: Stream) -> None:
    """Write (tokens, heads, size) ``source``, rotated back, into ``out``."""
    if out.is_cuda:
        _kernels().unrotate(source.contiguous(), out, stream.cos, stream.sin)
        return
    out.copy_(source)
    rotate_(out, stream, back=True)


def attend(q: Tensor, k: Tensor, v: Tensor, stream: Stream) -> tuple[Tensor, Any]:
    """Causal attention inside each conversation; returns the output and what `attend_back` needs.

    Shapes are (tokens, heads, size); ``k`` and ``v`` may have fewer heads.
    """
    if q.is_cuda:
        run = torch.ops.aten._flash_attention_forward  # noqa: SLF001
        sizes = (stream.longest, stream.longest)
        out, log_sum, seed, unused, _ = run(
            q, k, v, stream.starts, stream.starts, *sizes, 0.0, CAUSAL, NO_DEBUG_MASK
        )
        return out, (log_sum, seed, unused)
    found = [_attend_one(*parts) for parts in _split(stream, q, k, v)]
    outs, log_sums = zip(*found, strict=True)
    return torch.cat([_by_token(out) for out in outs]), log_sums


def attend_back(
    slope: Tensor, qkv: tuple[Tensor, Tensor, Tensor], out: Tensor, kept: Any, stream: Stream
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, given ``slope`` of the output."""
    if slope.is_cuda:
        log_sum, seed, unused = kept
        run = torch.ops.aten._flash_attention_backward  # noqa: SLF001
        starts, sizes = (stream.starts, stream.starts), (stream.longest, stream.longest)
        grads: tuple[Tensor, Tensor, Tensor] = run(
            slope, *qkv, out, log_sum, *starts, *sizes, 0.0, CAUSAL, seed, unused
        )
        return grads
    ones = zip(_split(stream, slope, *qkv, out), kept, strict=True)
    parts = [_attend_one_back(tensors, log_sum) for tensors, log_sum in ones]
    q_grad, k_grad, v_grad = (torch.cat(column) for column in zip(*parts, strict=True))
    return q_grad, k_grad, v_grad


def _split(stream: Stream, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    sizes = [size for size in stream.starts.diff().tolist() if size]
    return list(zip(*(torch.split(tensor, sizes) for tensor in tensors), strict=True))


def _attend_one(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """What torch's attention calls on a CPU: the output, by head, and its log-sum."""
    heads = q.shape[1]
    run = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001
    found: tuple[Tensor, Tensor] = run(*(_by_head(x, heads) for x in (q, k, v)), 0.0, CAUSAL)
    return found


def _attend_one_back(tensors: tuple[Tensor, ...], log_sum: Tensor) -> Sequence[Tensor]:
    """Gradients of q, k and v, given those of the output, q, k, v and the output.

    Heads that share keys and values add theirs up.
    """
    slope, q, k, v, out = tensors
    if attention_back.fits(q):
        return attention_back.attend_back(slope, (q, k, v), out, log_sum[0])
    heads = tensors[0].shape[1]
    run = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward  # noqa: SLF001
    given = (_by_head(x, heads) for x in tensors)
    grads = run(*given, log_sum, 0.0, CAUSAL)
    return [
        _by_token(grad).reshape(*one.shape[:2], -1, one.shape[2]).sum(2)
        for grad, one in zip(grads, tensors[1:4], strict=True)
    ]


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(tokens, heads or fewer, size) as (1, heads, tokens, size)."""
    return x.transpose(0, 1).repeat_interleave(heads // x.shape[1], dim=0)[None]


def _by_token(x: Tensor) -> Tensor:
    return x[0].transpose(0, 1)


def fused(like: Tensor) -> bool:
    """Whether an activation and the adapter's products beside it are one kernel.

    Kernels multiply 16-bit numbers on a GPU, and must have given there what is expected of them.
    """
    if not like.is_cuda or like.dtype not in (torch.bfloat16, torch.float16):
        return False
    from harness.train.stream.trial import fused_failure

    return fused_failure(like.dtype) is None


def activate(x: Tensor, a: Tensor, *, gated: bool) -> tuple[Tensor, Tensor]:
    """H = gelu(``x``) or, ``gated``, as `silu_mul`; and h Aᵀ for (rank, width) ``a``."""
    from harness.train.stream import fused as kernels

    return kernels.activate(x, a, gated=gated)


def activate_back_(x: Tensor, slope: Tensor, low_slope: Tensor, *, gated: bool) -> Tensor:
    """Turn ``x`` into its gradient; return that of A, float32, given the one of h Aᵀ."""
    from harness.train.stream import fused as kernels

    return kernels.activate_back_(x, slope, low_slope, gated=gated)


def add_low_(y: Tensor, low: Tensor, b: Tensor, other: Tensor) -> Tensor:
    """Add ``low`` bᵀ and ``other`` to ``y``."""
    from harness.train.stream import fused as kernels

    return kernels.add_low_(y, low, b, other)


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form."""
    if x.is_cuda:
        out: Tensor = _kernels().gelu(x)
        return out
    return functional.gelu(x, approximate="tanh")


def gelu_back_(x: Tensor, slope: Tensor) -> None:
    """Turn ``x`` into its gradient and ``slope`` (that of the output) into the output."""
    if x.is_cuda:
        _kernels().gelu_back_(x, slope)
        return
    out = functional.gelu(x, approximate="tanh")
    x.copy_(torch.ops.aten.gelu_backward(slope, x, approximate="tanh"))
    slope.copy_(out)


def silu_mul(x: Tensor) -> Tensor:
    """silu(gate) * up, both halves of ``x``."""
    if x.is_cuda:
        out: Tensor = _kernels().silu_mul(x)
        return out
    gate, up = x.chunk(2, dim=1)
    return functional.silu(gate) * up


def silu_mul_back_(x: Tensor, slope: Tensor) -> None:
    """Turn ``x`` into its gradient and ``slope`` (that of the output) into the output."""
    if x.is_cuda:
        _kernels().silu_mul_back_(x, slope)
        return
    gate, up = x.chunk(2, dim=1)
    smooth = functional.silu(gate)
    out = smooth * up
    gate.copy_(torch.ops.aten.silu_backward(slope * up, gate))
    torch.mul(slope, smooth, out=up)
    slope.copy_(out)


@dataclass(frozen=True)
class Norm:
    """A frozen layer norm, or root-mean-square norm where ``bias`` is None."""

    weight: Tensor
    bias: Tensor | None
    eps: float

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Norm of the rows of contiguous ``x``, written to ``out`` (rows may be strided)."""
        out = torch.empty_like(x) if out is None else out
        if not x.is_cuda:
            return out.copy_(self._reference(x))
        if self.bias is None:
            _kernels().rms_norm(x, self.weight, self.eps, out)
        else:
            _kernels().layer_norm(x, self.weight, self.bias, self.eps, out)
        return out

    def _reference(self, x: Tensor) -> Tensor:
        width = [x.shape[1]]
        if self.bias is None:
            return functional.rms_norm(x, width, self.weight, self.eps)
        return functional.layer_norm(x, width, self.weight, self.bias, self.eps)

    def backward_(self, x: Tensor, slope: Tensor, total: Tensor) -> None:
        """Add the gradient of ``x`` to ``total``, given ``slope`` of the output."""
        if x.is_cuda:
            back = _kernels().rms_norm_back_ if self.bias is None else _kernels().layer_norm_back_
            back(x, self.weight, self.eps, slope, total)
            return
        total.add_(self._gradient(x, slope) if self.bias is None else self._asked_of(x, slope))

    def _gradient(self, x: Tensor, slope: Tensor) -> Tensor:
        """That of a root-mean-square norm, in float32 or better."""
        exact = _at_least_float32(x)
        spread = exact.square().mean(dim=1, keepdim=True).add_(self.eps).rsqrt_()
        normed = exact.mul(spread)
        weighted = slope * self.weight.to(exact.dtype)
        along = (weighted * normed).mean(dim=1, keepdim=True)
        return weighted.addcmul_(normed, along, value=-1).mul_(spread)

    def _asked_of(self, x: Tensor, slope: Tensor) -> Tensor:
        """The gradient that autograd finds."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self._reference(leaf), leaf, slope)
        return gradient


def cross_entropy_(logits: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """Loss of each row (nats); ``logits`` turn into ``scale`` times their gradient.

    Rows with a negative target carry neither.
    """
    if logits.is_cuda:
        out: Tensor = _kernels().cross_entropy_(logits, targets, scale)
        return out
    return cross_entropy_on_processor_(logits, targets, scale)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
