"""Decoder: a whole causal language model's loss and adapter gradients, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from harness.quantize.float8 import has_triton
from harness.train.collate import StreamBatch, StreamSize, make_stream_batch
from harness.train.stream import ops
from harness.train.stream.blocks import ACTIVATIONS, Block, Inside, frozen_norm, make_blocks
from harness.train.stream.drafts import make_drafts
from harness.train.stream.footprint import logit_chunk
from harness.train.stream.linears import Linears, UnsupportedLayer, refresh
from harness.train.stream.ops import Stream
from harness.train.stream.store import DeviceStore, HostStore

if TYPE_CHECKING:
    from harness.corpus.sequences import TrainingRow


class Decoder:
    """Forward and backward of one micro-batch as a stream of tokens.

    With ``kept`` only that many of the last layers keep all they computed, the others only their
    input, and compute the rest again; ``offload`` moves inputs to page-locked host memory
    meanwhile, and what a layer has between attention and MLP too, which is not computed again then.
    """

    name: ClassVar[str] = "fast"
    pads: ClassVar[bool] = False
    unrecordable: ClassVar[tuple[type[Exception], ...]] = ()
    linears: ClassVar[type[Linears]] = Linears
    host_store: ClassVar[Callable[[int], DeviceStore]] = HostStore

    def __init__(
        self,
        model: Any,
        dtype: torch.dtype,
        *,
        kept: int | None = None,
        offload: bool = False,
        on_gpu: bool = False,
    ) -> None:
        """Take a transformers model with its PEFT adapters, which may be on the meta device.

        Raises:
            UnsupportedLayer: something in it that this path does not know.
        """
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        if base.config.model_type not in ACTIVATIONS:
            raise UnsupportedLayer(f"models of type {base.config.model_type}")
        body = base.base_model
        self._embed = body.embed_tokens
        self._rotary = body.rotary_emb
        last = body.norm if hasattr(body, "norm") else body.final_layernorm
        self._head = base.get_output_embeddings()
        if type(self._embed) is not nn.Embedding or type(self._head) is not nn.Linear:
            raise UnsupportedLayer("an adapted embedding or output layer")
        if self._embed.weight.requires_grad or self._head.weight.requires_grad:
            raise UnsupportedLayer("a trained embedding or output layer")
        if on_gpu:
            _check_kernels(dtype, self._rotary)
        self._norm = frozen_norm(last)
        self._dtype = dtype
        self.blocks: list[Block] = make_blocks(body.layers, dtype, self.linears)
        self._check_all_taken(model)
        self._drafts = make_drafts(self._groups, dtype)
        self._recomputed = 0 if kept is None else max(0, len(self.blocks) - kept)
        # On the device it would be one more tensor a layer; on the host there is room.
        self._keeps_between = offload and all(block.has_middle for block in self.blocks)
        ahead = 2 if self._keeps_between else 1
        self._store = type(self).host_store(ahead) if offload else DeviceStore()

    def _check_all_taken(self, model: nn.Module) -> None:
        taken = {id(p) for block in self.blocks for group in block.linears for p in group.trained}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and id(parameter) not in taken:
                raise UnsupportedLayer(f"the trained parameter {name}")

    def size_of(self, rows: Sequence[TrainingRow]) -> StreamSize:
        """What ``rows`` take."""
        return StreamSize.of(rows)

    def batch(
        self, rows: Sequence[TrainingRow], size: StreamSize | None = None, pad_id: int = 0
    ) -> StreamBatch:
        """See :func:`harness.train.collate.make_stream_batch`."""
        return make_stream_batch(rows, size, pad_id)

    def reserve(self, tokens: int) -> None:
        """See :class:`harness.train.micro_step.MicroStep`; to page-lock a GiB takes a second."""
        shape = (tokens, self._embed.embedding_dim)
        self._store.reserve(self._places, torch.empty(shape, dtype=self._dtype, device="meta"))

    def refresh(self) -> None:
        """Take the adapters' present values. Call after every optimizer step."""
        refresh(self._groups)

    @property
    def _groups(self) -> list[Linears]:
        return [group for block in self.blocks for group in block.linears]

    def join_gradients(self) -> Tensor:
        """Keep all gradients in one tensor from now on, and return it: zero, one dimension.

        Each layer adds its own then, so that they are complete layer by layer.
        """
        self._drafts = None
        groups = [group for group in self._groups if group.trained]
        sizes = [group.gradient_size for group in groups]
        flat = groups[0].trained[0].new_zeros(sum(sizes), requires_grad=False)
        for group, part in zip(groups, torch.split(flat, sizes), strict=True):
            group.put_gradients(part)
        of_blocks = [
            sum(group.gradient_size for group in block.linears if group.trained)
            for block in self.blocks
        ]
        self._starts = [0, *accumulate(of_blocks)][:-1]
        return flat

    def stream(self, batch: StreamBatch) -> Stream:
        """The stream of ``batch``, with its angles."""
        probe = torch.empty(0, dtype=torch.float32, device=batch.positions.device)
        cos, sin = self._rotary(probe, batch.positions[None])
        return Stream(batch.starts, batch.longest, cos[0].contiguous(), sin[0].contiguous())

    def refill(self, stream: Stream, batch: StreamBatch) -> None:
        """Give ``stream`` the angles of ``batch``, in place."""
        made = self.stream(batch)
        stream.cos.copy_(made.cos)
        stream.sin.copy_(made.sin)

    @torch.no_grad()
    def accumulate(
        self,
        batch: StreamBatch,
        stream: Stream,
        scale: Tensor,
        complete_from: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Add ``scale`` times the gradient of the summed loss; return that sum (nats, float32).

        ``scale`` is a float32 scalar on the device. ``complete_from`` is told after each layer's
        backward pass where its gradients begin among those that :meth:`join_gradients` has joined.
        """
        x = self._embed(batch.ids).to(self._dtype)
        kept: list[Inside | Tensor | None] = []
        self._store.open(self._places, x)
        for index, block in enumerate(self.blocks):
            y, inside = block.forward(x, stream)
            place, between = self._place(index)
            self._store.put(place, x)
            if between is not None and inside.middle is not None:
                self._store.put(between, inside.middle)
            kept.append(_last_low(block, inside) if index < self._recomputed else inside)
            del inside
            x = y
        loss, slope = self._head_loss(x, batch, scale)
        del x, y
        for index in reversed(range(len(self.blocks))):
            block, saved = self.blocks[index], kept.pop()
            place, between = self._place(index)
            middle = None if between is None else self._store.take(between)
            x = self._store.take(place)
            if not isinstance(saved, Inside):
                low, saved = saved, block.recompute(x, stream, middle)
                saved.last_low = low
            slope = block.backward_(slope, x, saved, stream, further=index > 0)
            del x, middle, saved
            if complete_from is not None:
                complete_from(self._starts[index])
        if self._drafts is not None:
            self._drafts.add_up()
        return loss

    @property
    def _places(self) -> int:
        """How many tensors are stored in a micro-batch."""
        return len(self.blocks) + (self._recomputed if self._keeps_between else 0)

    def _place(self, index: int) -> tuple[int, int | None]:
        """Where the input of a layer is stored, and what it has between attention and MLP."""
        if not self._keeps_between:
            return index, None
        if index >= self._recomputed:
            return index + self._recomputed, None
        return 2 * index, 2 * index + 1

    @torch.no_grad()
    def losses(self, batch: StreamBatch) -> Tensor:
        """Loss of each labelled token (nats, float32), without gradients."""
        stream = self.stream(batch)
        x = self._embed(batch.ids).to(self._dtype)
        for block in self.blocks:
            x, _ = block.forward(x, stream)
        logits = self._head(self._norm.forward(x)[batch.where])
        return ops.cross_entropy_(logits, batch.targets, torch.ones((), device=x.device))

    def _head_loss(self, x: Tensor, batch: StreamBatch, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Summed loss, and ``scale`` times its gradient in ``x``."""
        losses, slope = self._head_slope(x, batch, scale)
        carried = torch.zeros_like(x)
        self._norm.backward_(x, slope, carried)
        return losses.sum(), carried

    def _head_slope(self, x: Tensor, batch: StreamBatch, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each of ``batch.where``, and ``scale`` times the gradient of their sum.

        That gradient is in the normed states; logits exist in chunks only.
        """
        hidden = self._norm.forward(x)
        slope = torch.zeros_like(x)
        weight = self._head.weight
        chunk = logit_chunk(weight.shape[0], x.element_size())
        losses = []
        parts = zip(torch.split(batch.where, chunk), torch.split(batch.targets, chunk), strict=True)
        for where, targets in parts:
            logits = self._head(hidden[where])
            losses.append(ops.cross_entropy_(logits, targets, scale))
            slope[where] = logits @ weight
        return torch.cat(losses), slope


def _last_low(block: Block, inside: Inside) -> Tensor | None:
    """What a recomputed layer keeps: little, and without it two products would be apart."""
    return inside.last_low if block.linears[-1].fused else None


def _check_kernels(dtype: torch.dtype, rotary: Any) -> None:
    """Refuse what the GPU's kernels cannot do."""
    if dtype == torch.float32:
        raise UnsupportedLayer("attention in single precision on a GPU")
    if torch.version.cuda is not None and not has_triton():
        raise UnsupportedLayer("a GPU without Triton")
    half = int(rotary.inv_freq.numel())
    if half & (half - 1):
        raise UnsupportedLayer(f"{2 * half} rotary channels, which are no power of two")
