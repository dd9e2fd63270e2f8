"""Blocks: decoder layers of the Phi and Llama families with their gradients written out.

Writing the backward pass down lets it recompute exactly what is cheap (norms, activations), skip
what recomputation does not need (the last projection) and reuse memory; tests hold it to autograd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from harness.train.stream import ops
from harness.train.stream.linears import Linears, UnsupportedLayer, sum_of
from harness.train.stream.ops import Norm, Stream

# Model types with the activations that their blocks have.
ACTIVATIONS = {
    "llama": ("silu", "swish"),
    "mistral": ("silu", "swish"),
    "qwen2": ("silu", "swish"),
    "phi": ("gelu_new", "gelu_pytorch_tanh"),
}


@dataclass
class Inside:
    """What a layer's forward pass computed and its backward pass needs.

    ``lows`` are h Aᵀ of the groups of layers in their order, of all but the last: ``last_low``.
    """

    wide: Tensor
    mixed: Tensor
    attention: Any
    lows: list[Tensor | None]
    middle: Tensor | None = None
    gated: Tensor | None = None
    last_low: Tensor | None = None


class Block(Protocol):
    """One decoder layer on a stream of (tokens, channels).

    ``has_middle``: attention comes before the MLP, with a sum between them.
    """

    has_middle: ClassVar[bool]

    @property
    def linears(self) -> list[Linears]:
        """Its groups of linear layers."""

    def forward(self, x: Tensor, stream: Stream) -> tuple[Tensor, Inside]:
        """The output, and what `backward_` needs."""

    def recompute(self, x: Tensor, stream: Stream, middle: Tensor | None = None) -> Inside:
        """What `forward` would keep, without the output; ``middle`` if it has been kept."""

    def backward_(
        self, slope: Tensor, x: Tensor, inside: Inside, stream: Stream, *, further: bool
    ) -> Tensor:
        """Turn ``slope`` of the output into that of ``x`` (if ``further``); collect gradients."""


class _Attention:
    """Rotary attention on the first columns (queries, keys, values) of a wide tensor."""

    def __init__(self, module: Any) -> None:
        config = module.config
        self.size = int(module.head_dim)
        self.heads = int(config.num_attention_heads)
        self.groups = int(config.num_key_value_heads)
        if self.size % 8 or self.size > 256:
            raise UnsupportedLayer(f"attention heads of {self.size} channels")
        for name in ("q_layernorm", "q_norm"):
            if getattr(module, name, None) is not None:
                raise UnsupportedLayer("norms inside attention")
        # Mistral's attention reads the window off the configuration, Qwen2's keeps its own
        if getattr(module, "sliding_window", getattr(config, "sliding_window", None)) is not None:
            raise UnsupportedLayer("sliding-window attention")
        if abs(module.scaling - self.size**-0.5) > 1e-9:
            raise UnsupportedLayer("an attention scale other than 1/sqrt(head size)")

    def split(self, wide: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Views of the queries, keys and values: (tokens, heads, size)."""
        sizes = [self.heads, self.groups, self.groups]
        columns = sum(sizes) * self.size
        whole = wide[:, :columns].view(len(wide), sum(sizes), self.size)
        q, k, v = torch.split(whole, sizes, dim=1)
        return q, k, v

    def _turning(self, wide: Tensor) -> Tensor:
        turning = self.heads + self.groups
        return wide[:, : turning * self.size].view(len(wide), turning, self.size)

    def forward_(self, wide: Tensor, stream: Stream) -> tuple[Tensor, Any]:
        """Rotate queries and keys in place; return the mixed values and what backward needs."""
        ops.rotate_(self._turning(wide), stream)
        mixed, kept = ops.attend(*self.split(wide), stream)
        return mixed.flatten(1), kept

    def backward_(self, slope: Tensor, wide: Tensor, inside: Inside, stream: Stream) -> None:
        """Turn queries, keys and values in ``wide`` into their gradients."""
        shape = (-1, self.heads, self.size)
        parts = self.split(wide)
        grads = ops.attend_back(
            slope.view(shape), parts, inside.mixed.view(shape), inside.attention, stream
        )
        ops.unrotate(grads[0], parts[0], stream)
        ops.unrotate(grads[1], parts[1], stream)
        parts[2].copy_(grads[2])


def _check_activation(config: Any) -> None:
    if config.hidden_act not in ACTIVATIONS.get(config.model_type, ()):
        raise UnsupportedLayer(f"the activation {config.hidden_act}")


class PhiBlock:
    """Attention and MLP side by side on one norm: y = x + dense(attend(h)) + fc2(gelu(fc1(h)))."""

    has_middle: ClassVar[bool] = False

    def __init__(self, layer: Any, dtype: torch.dtype, linears: type[Linears] = Linears) -> None:
        """Take a transformers ``PhiDecoderLayer``, with or without adapters."""
        attention, mlp = layer.self_attn, layer.mlp
        _check_activation(attention.config)
        self._attention = _Attention(attention)
        self._norm = frozen_norm(layer.input_layernorm)
        up = [attention.q_proj, attention.k_proj, attention.v_proj, mlp.fc1]
        self._up = linears(up, dtype, wide=True)
        self._dense = linears([attention.dense], dtype)
        self._down = linears([mlp.fc2], dtype)
        biases = [item.bias for item in (self._dense, self._down) if item.bias is not None]
        self._dense.bias = torch.stack(biases).sum(0) if biases else None  # of their sum

    @property
    def linears(self) -> list[Linears]:
        """Its groups of linear layers."""
        return [self._up, self._dense, self._down]

    def _inner(self, wide: Tensor) -> Tensor:
        return wide[:, -self._up.widths[-1] :]

    def recompute(
        self,
        x: Tensor,
        stream: Stream,
        middle: Tensor | None = None,  # noqa: ARG002 - there is none
    ) -> Inside:
        """What `forward` would keep, without the output."""
        wide, low = self._up.forward(_normed(self._norm, self._up, x))
        mixed, kept = self._attention.forward_(wide, stream)
        return Inside(wide, mixed, kept, [low])

    def forward(self, x: Tensor, stream: Stream) -> tuple[Tensor, Inside]:
        """The output, and what `backward_` needs."""
        inside = self.recompute(x, stream)
        h, low = self._down.activate(self._inner(inside.wide), gated=False)
        parts = [(self._dense, inside.mixed, None), (self._down, h, low)]
        y, (low_dense, inside.last_low) = sum_of(parts, x)
        inside.lows.append(low_dense)
        return y, inside

    def backward_(
        self, slope: Tensor, x: Tensor, inside: Inside, stream: Stream, *, further: bool
    ) -> Tensor:
        """Turn ``slope`` of the output into that of ``x`` (if ``further``); collect gradients."""
        wide, mixed = inside.wide, inside.mixed
        low_up, low_dense = (*inside.lows, None)[:2]
        slopes = self._down.backward(slope)
        inner, low_down = self._down.activate_back_(
            self._inner(wide), slopes, inside.last_low, gated=False
        )
        self._down.collect(slope, inner, low_down, slopes[1])
        del inner, slopes
        mixed_slope, low_slope = self._dense.backward(slope)
        low_dense = self._dense.low(mixed) if low_dense is None else low_dense
        self._dense.collect(slope, mixed, low_dense, low_slope)
        self._attention.backward_(mixed_slope, wide, inside, stream)
        del mixed_slope
        h_slope, low_slope = self._up.backward(wide, further=further)
        self._up.collect(wide, self._norm.forward(x), low_up, low_slope)
        if further:
            self._norm.backward_(x, h_slope, slope)
        return slope


class LlamaBlock:
    """Attention, then a gated MLP: m = x + o(attend(n1(x))), y = m + down(silu(g) · u)."""

    has_middle: ClassVar[bool] = True

    def __init__(self, layer: Any, dtype: torch.dtype, linears: type[Linears] = Linears) -> None:
        """Take a transformers ``LlamaDecoderLayer`` (or one of its shape)."""
        attention, mlp = layer.self_attn, layer.mlp
        _check_activation(attention.config)
        self._attention = _Attention(attention)
        self._norms = (
            frozen_norm(layer.input_layernorm),
            frozen_norm(layer.post_attention_layernorm),
        )
        qkv = [attention.q_proj, attention.k_proj, attention.v_proj]
        self._qkv = linears(qkv, dtype, wide=True)
        self._out = linears([attention.o_proj], dtype)
        self._up = linears([mlp.gate_proj, mlp.up_proj], dtype, wide=True)
        self._down = linears([mlp.down_proj], dtype)

    @property
    def linears(self) -> list[Linears]:
        """Its groups of linear layers."""
        return [self._qkv, self._out, self._up, self._down]

    def recompute(self, x: Tensor, stream: Stream, middle: Tensor | None = None) -> Inside:
        """What `forward` would keep, without the output.

        With ``middle``, the sum between attention and MLP, one product less is computed again.
        """
        wide, low_qkv = self._qkv.forward(_normed(self._norms[0], self._qkv, x))
        mixed, kept = self._attention.forward_(wide, stream)
        low_out: Tensor | None = None
        if middle is None:
            middle, (low_out,) = sum_of([(self._out, mixed, None)], x)
        gated, low_up = self._up.forward(_normed(self._norms[1], self._up, middle))
        return Inside(wide, mixed, kept, [low_qkv, low_out, low_up], middle, gated)

    def forward(self, x: Tensor, stream: Stream) -> tuple[Tensor, Inside]:
        """The output, and what `backward_` needs."""
        inside = self.recompute(x, stream)
        assert inside.gated is not None and inside.middle is not None  # noqa: S101, PT018
        h, low = self._down.activate(inside.gated, gated=True)
        y, (inside.last_low,) = sum_of([(self._down, h, low)], inside.middle)
        return y, inside

    def backward_(
        self, slope: Tensor, x: Tensor, inside: Inside, stream: Stream, *, further: bool
    ) -> Tensor:
        """Turn ``slope`` of the output into that of ``x`` (if ``further``); collect gradients."""
        self._mlp_backward_(slope, inside)
        mixed_slope, low_slope = self._out.backward(slope)
        low_out = inside.lows[1]
        low_out = self._out.low(inside.mixed) if low_out is None else low_out
        self._out.collect(slope, inside.mixed, low_out, low_slope)
        self._attention.backward_(mixed_slope, inside.wide, inside, stream)
        del mixed_slope
        h_slope, low_slope = self._qkv.backward(inside.wide, further=further)
        self._qkv.collect(inside.wide, self._norms[0].forward(x), inside.lows[0], low_slope)
        if further:
            self._norms[0].backward_(x, h_slope, slope)
        return slope

    def _mlp_backward_(self, slope: Tensor, inside: Inside) -> None:
        gated, middle = inside.gated, inside.middle
        assert gated is not None and middle is not None  # noqa: S101, PT018
        slopes = self._down.backward(slope)
        inner, low = self._down.activate_back_(gated, slopes, inside.last_low, gated=True)
        self._down.collect(slope, inner, low, slopes[1])
        del inner, slopes
        h_slope, low_slope = self._up.backward(gated)
        self._up.collect(gated, self._norms[1].forward(middle), inside.lows[2], low_slope)
        inside.gated = None
        self._norms[1].backward_(middle, h_slope, slope)


def _normed(norm: Norm, linears: Linears, x: Tensor) -> Tensor:
    """The norm of ``x`` as an input of ``linears``, with room for its riders."""
    whole, part = linears.room(x)
    norm.forward(x, part)
    return whole


def frozen_norm(module: nn.Module) -> Norm:
    """A norm whose weights are not trained."""
    weight: Any = module.weight
    if weight.requires_grad:
        raise UnsupportedLayer("a trained norm")
    eps: Any = getattr(module, "variance_epsilon", None) or getattr(module, "eps", None)
    bias: Any = getattr(module, "bias", None)
    return Norm(weight.data, None if bias is None else bias.data, float(eps))


FAMILIES: dict[str, type[PhiBlock] | type[LlamaBlock]] = {
    "PhiDecoderLayer": PhiBlock,
    "LlamaDecoderLayer": LlamaBlock,
    "MistralDecoderLayer": LlamaBlock,
    "Qwen2DecoderLayer": LlamaBlock,
}


def make_blocks(layers: Any, dtype: torch.dtype, linears: type[Linears] = Linears) -> list[Block]:
    """Blocks of a decoder's layers, with their linear layers as ``linears``.

    Raises:
        UnsupportedLayer: of another family, or with parts the blocks do not know.
    """
    blocks: list[Block] = []
    for layer in layers:
        family = FAMILIES.get(type(layer).__name__)
        if family is None:
            raise UnsupportedLayer(f"a {type(layer).__name__}")
        blocks.append(family(layer, dtype, linears))
    return blocks
