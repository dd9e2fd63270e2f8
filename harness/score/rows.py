"""Rows: sequences that are continued side by side, one token a step, after a prefix they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from harness.score.body import TreeBody
from harness.score.prefixes import IntArray
from harness.weights.masks import replaced

SHORT = 16  # steps whose tokens are kept until they are read
PLAIN = frozenset(  # what attention functions are told that changes nothing here
    ("cache", "dropout", "is_causal", "output_attentions", "position_ids", "scaling",
     "sliding_window", "use_cache")
)  # fmt: skip

Product = Callable[[Tensor, Tensor], Tensor]


class Rows:
    """A cache of fixed size: a prefix kept once, and for each row its own keys and values.

    A row's own tokens lie from the left, so that a token's place is its position. Rows below
    ``count`` are continued; what others hold means nothing.

    Attributes:
        number: rows that there is room for.
        room: own tokens of a row that there is room for.
        count: rows that are continued.
        width: own tokens of a row that a step looks at.
        index: of each row.
        lengths: own tokens of each row that are in the cache.
        newest: the last token of each row, which is not.
        recent: (rows, SHORT) tokens of the steps since ``begin_steps``.
    """

    def __init__(self, body: TreeBody, cache: Any, prefix: int, rows: int, room: int) -> None:
        """Make room for ``rows`` of ``room`` tokens after the first ``prefix`` of ``cache``."""
        self._body = body
        self.prefix, self.number, self.room = prefix, rows, room
        self.count, self.width = rows, room
        device = body.device
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.newest = torch.zeros(rows, dtype=torch.long, device=device)
        self.recent = torch.zeros((rows, SHORT), dtype=torch.long, device=device)
        self._at = torch.zeros(1, dtype=torch.long, device=device)
        self.index = torch.arange(rows, device=device)
        self._layers = [_RowLayer(self, layer, rows, room) for layer in cache.layers]
        self._cache = Cache(layers=self._layers)
        self._product = _product_on(device, cache.layers[0].keys.dtype)
        self._attending: _RowLayer | None = None
        self._masks: list[tuple[Tensor, Tensor]] = []
        self._attended = 0

    def enter(
        self, places: Sequence[int], cache: Any, paths: Sequence[IntArray], first: Tensor
    ) -> None:
        """Let new rows begin: their own tokens are copied, and ``first`` are the newest.

        ``paths`` say where each row's tokens lie in ``cache`` beyond the prefix.
        """
        device = self._body.device
        sizes = [len(path) for path in paths]
        padded = np.zeros((len(paths), max(sizes)), np.int64)
        for row, path in enumerate(paths):
            padded[row, : len(path)] = path
        where = torch.from_numpy(padded + self.prefix).to(device)
        into = torch.tensor(places, device=device)
        for own, filled in zip(self._layers, cache.layers, strict=True):
            own.keys[into, :, : max(sizes)] = filled.keys[0][:, where].transpose(0, 1)
            own.values[into, :, : max(sizes)] = filled.values[0][:, where].transpose(0, 1)
        self.lengths[into] = torch.tensor(sizes, device=device)
        self.newest[into] = first

    def move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Let rows take the places of others."""
        taken = torch.tensor(sources, device=self._body.device)
        into = torch.tensor(targets, device=self._body.device)
        for layer in self._layers:
            layer.keys[into] = layer.keys[taken]
            layer.values[into] = layer.values[taken]
        self.lengths[into] = self.lengths[taken]
        self.newest[into] = self.newest[taken]

    def begin_steps(self, count: int) -> None:
        """Let the next step's tokens be the first of ``recent``; rows from ``count`` on idle."""
        self._at.zero_()
        self.lengths[count:] = 0

    def step(self) -> None:
        """One more token for each row that is continued; it is the newest, and in ``recent``."""
        count = self.count
        self._attended = 0
        self._masks = []
        states = self._body.continued(
            self.newest[:count, None], (self.lengths[:count] + self.prefix)[:, None], self._cache
        )
        if self._attended != len(self._layers):
            msg = "the model attends in a way of its own"
            raise ValueError(msg)
        chosen = self._body.logits(states[:, 0]).argmax(-1)
        self.newest[:count] = chosen
        self.recent[:count].index_copy_(1, self._at, chosen[:, None])
        self._at.add_(1)
        self.lengths[:count].add_(1)

    @contextmanager
    def open(self) -> Iterator[None]:
        """While this is open, the model's attention reads these rows."""
        from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        name = self._body.attention
        make_mask = self._masks_by(ALL_MASK_ATTENTION_FUNCTIONS[name])
        with (
            replaced(ALL_MASK_ATTENTION_FUNCTIONS, name, make_mask),
            replaced(ALL_ATTENTION_FUNCTIONS, name, self._attend),
        ):
            yield

    def _masks_by(self, make_mask: Callable[..., Any]) -> Callable[..., Tensor]:
        """An entry of transformers' mask interface that asks about each row's newest token."""

        def make(*, mask_function: Callable[..., Any], **settings: Any) -> Tensor:
            depths = self.lengths[: self.count] + self.prefix
            settings |= {"attention_mask": None, "allow_is_causal_skip": False, "local_size": None}
            made: Tensor = make_mask(
                mask_function=lambda row, head, _, key: mask_function(row, head, depths[row], key),
                **settings,
            )
            return made if made.dtype == torch.bool else made == 0

        return make

    def _attend(
        self, _: Any, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, **settings: Any
    ) -> tuple[Tensor, None]:
        """Attention of one token a row (rows, heads, 1, size) to the prefix and to its own."""
        cap = settings.pop("softcap", None)
        strange = [key for key, value in settings.items() if key not in PLAIN and value is not None]
        layer = self._attending
        if strange or layer is None or query.shape[2] != 1:
            msg = f"attention with {', '.join(strange) or 'other shapes'}"
            raise ValueError(msg)
        self._attending = None
        self._attended += 1
        rows, heads, _, size = query.shape
        groups = keys.shape[1]
        scale = settings.get("scaling")
        asked = query.reshape(rows, groups, heads // groups, size)
        scores = self._product(asked, keys.transpose(-1, -2))
        if self.prefix:
            scores = torch.cat([layer.prefix_scores(asked, self._product), scores], dim=-1)
        scale = size**-0.5 if scale is None else scale
        if cap is not None:
            scores, scale = torch.tanh(scores * (scale / cap)), cap
        scores = torch.add(self._barred(mask), scores, alpha=scale)
        weights = scores.softmax(-1).to(query.dtype)
        found = weights[..., self.prefix :] @ values
        if self.prefix:
            found = found + layer.prefix_values_of(weights[..., : self.prefix])
        return found.reshape(rows, 1, heads, -1), None

    def _barred(self, mask: Tensor) -> Tensor:
        """Minus infinity where a row must not look, else 0; layers with one mask share it."""
        known = [barred for own, barred in self._masks if own is mask]
        if not known:
            known = [torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, -torch.inf)]
            self._masks.append((mask, known[0]))
        return known[0]

    def attending(self, layer: _RowLayer) -> None:
        """Note which layer attends next."""
        self._attending = layer


class _RowLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped
    """Keys and values of one layer."""

    is_sliding = False

    def __init__(self, rows: Rows, filled: Any, count: int, room: int) -> None:
        """Take the prefix of a filled layer, and make room for rows like it."""
        super().__init__()
        self._rows = rows
        prefix = rows.prefix
        self.prefix_keys = filled.keys[0, :, :prefix].contiguous()  # groups, tokens, size
        self.prefix_values = filled.values[0, :, :prefix].contiguous()
        groups = filled.keys.shape[1]
        self.keys: Tensor = filled.keys.new_zeros((count, groups, room, filled.keys.shape[-1]))
        self.values: Tensor = filled.values.new_zeros(
            (count, groups, room, filled.values.shape[-1])
        )
        self.dtype, self.device = self.keys.dtype, self.keys.device
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is left to do."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one token a row (rows, groups, 1, size); the own keys and values of all rows."""
        rows = self._rows
        count, width = rows.count, rows.width
        where = (rows.index[:count], slice(None), rows.lengths[:count])
        self.keys[where] = key_states[:, :, 0]
        self.values[where] = value_states[:, :, 0]
        rows.attending(self)
        return self.keys[:count, :, :width], self.values[:count, :, :width]

    def prefix_scores(self, asked: Tensor, product: Product) -> Tensor:
        """Products (rows, groups, heads of a group, prefix) of queries with the prefix's keys."""
        rows, groups, heads, size = asked.shape
        flat = asked.transpose(0, 1).reshape(groups, rows * heads, size)
        found = product(flat, self.prefix_keys.transpose(-1, -2))
        return found.view(groups, rows, heads, -1).transpose(0, 1)

    def prefix_values_of(self, weights: Tensor) -> Tensor:
        """Weighted sums (rows, groups, heads of a group, size) of the prefix's values."""
        rows, groups, heads, prefix = weights.shape
        flat = weights.transpose(0, 1).reshape(groups, rows * heads, prefix)
        found: Tensor = flat @ self.prefix_values
        return found.view(groups, rows, heads, -1).transpose(0, 1)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:  # noqa: ARG002
        """Keys that a step looks at, from the first."""
        return self._rows.prefix + self._rows.width, 0

    def get_seq_length(self) -> int:
        """Tokens that all rows have."""
        return self._rows.prefix

    def get_max_length(self) -> int:
        """Keys that there is room for."""
        return self._rows.prefix + int(self.keys.shape[2])

    get_max_cache_shape = get_max_length  # its name in older versions of transformers


def _product_on(device: torch.device, dtype: torch.dtype) -> Product:
    """What multiplies batches of matrices into float32: without rounding where the device can."""
    if dtype != torch.float32 and device.type == "cuda":
        tried = torch.ones((1, 8, 8), dtype=dtype, device=device)
        with suppress(TypeError, RuntimeError, NotImplementedError):
            torch.bmm(tried, tried, out_dtype=torch.float32)
            return _wide_product
    return lambda left, right: (left @ right).float()


def _wide_product(left: Tensor, right: Tensor) -> Tensor:
    found = torch.bmm(left.flatten(0, -3), right.flatten(0, -3), out_dtype=torch.float32)
    shaped: Tensor = found.view(*left.shape[:-1], right.shape[-1])
    return shaped
