"""Body: a causal language model taken apart into hidden states and logits, as far as it allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch

from harness.score.lean import LeanAdapters
from harness.score.mask import TreeMask, tree_masks
from harness.score.prefixes import IntArray, Layout
from harness.score.recorded import RecordedPasses, is_recordable
from harness.weights.masks import attention_of
from harness.weights.norms import Norms
from harness.weights.sharded import is_sharded

LOGIT_BYTES = {"cpu": 64 << 20, "cuda": 256 << 20}  # of float32 logits that exist at a time
FUSE_NORMS = frozenset(("cuda",))  # devices on which a pass is bound by its launches
CACHED_ROWS = 8  # rows of logits that stay in a processor's cache from one operation to the next


class Body(Protocol):
    """What :class:`harness.score.likelihood.Likelihood` asks of a model.

    Attributes:
        way: how sequences are run, in words for a reader of a score's details.
        takes_trees: sequences that share a prefix may be run as one tree.
        takes_rows: several sequences may be run side by side, padded on the right.
    """

    way: ClassVar[str]
    takes_trees: ClassVar[bool]
    takes_rows: ClassVar[bool]
    device: torch.device

    def extend(self, cache: Any, keep: int, tokens: IntArray) -> Any:
        """Run tokens after the first ``keep`` cached ones; the cache then holds both."""

    def run_tree(self, cache: Any, base: int, layout: Layout) -> torch.Tensor:
        """Hidden states [n, width] of a tree over the first ``base`` cached tokens."""

    def expecting(self, shapes: Iterable[tuple[int, int]]) -> AbstractContextManager[None]:
        """While this is open, rows are run in passes of these shapes (rows, longest)."""

    def run_rows(self, rows: Sequence[IntArray]) -> torch.Tensor:
        """Hidden states [rows * longest, width], padded on the right.

        The next pass may write over them.
        """

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The model's own logits [m, words] of hidden states [m, width]."""

    def log_probs(
        self, hidden: torch.Tensor, rows: IntArray, targets: IntArray
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Log-probability of ``targets`` [m] after the states at ``rows`` [m]; and if likeliest."""


class WholeBody:
    """Any causal model, called whole, one sequence at a time: slow, and right for every model."""

    way: ClassVar[str] = "one sequence at a time"
    takes_trees: ClassVar[bool] = False
    takes_rows: ClassVar[bool] = False

    def __init__(self, model: Any) -> None:
        """Take a model that maps ``input_ids`` [1, n] to logits [1, n or more, words]."""
        self.model = model
        self.device: torch.device = model.device

    def extend(self, cache: Any, keep: int, tokens: IntArray) -> Any:
        """Not used: every sequence is a row."""
        raise NotImplementedError

    def run_tree(self, cache: Any, base: int, layout: Layout) -> torch.Tensor:
        """Not used: every sequence is a row."""
        raise NotImplementedError

    def expecting(self, shapes: Iterable[tuple[int, int]]) -> AbstractContextManager[None]:  # noqa: ARG002
        """See :class:`Body`. Every sequence is a pass like any other."""
        return nullcontext()

    def run_rows(self, rows: Sequence[IntArray]) -> torch.Tensor:
        """Logits in place of hidden states; those of a soft prompt's virtual tokens are cut off."""
        (row,) = rows
        logits: torch.Tensor = self.model(input_ids=_ids(row, self.device)[None]).logits
        return logits[0, -len(row) :]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """See :class:`Body`."""
        return hidden

    def log_probs(
        self, hidden: torch.Tensor, rows: IntArray, targets: IntArray
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """See :class:`Body`."""
        index = torch.from_numpy(np.arange(len(rows))).to(self.device)
        return _read_logits(hidden[_ids(rows, self.device)], index, _ids(targets, self.device))


class RowsBody:
    """A model whose own forward pass is run over padded rows; logits exist for few positions.

    The pass is the model's own from the token ids on, soft prompts included. Its decoder's last
    states are taken out, and what the model makes of them (projection, scale, cap) is asked for
    the wanted positions only, a bounded number at a time, in the model's dtype. Log-softmax is
    float32.

    Attributes:
        parts: the decoder, and the type of its output.
    """

    way: ClassVar[str] = "padded batches"
    takes_trees: ClassVar[bool] = False
    takes_rows: ClassVar[bool] = True

    def __init__(self, model: Any, parts: tuple[Any, type] | None = None) -> None:
        """Take a transformers or PEFT causal model; ``parts`` of another body save the search.

        Raises:
            TypeError: no decoder is found whose states the model turns into logits.
        """
        self.model = model
        self._causal = model.get_base_model() if hasattr(model, "peft_config") else model
        self._config = self._causal.config
        self.device: torch.device = model.device
        self.parts = parts or self._find_decoder()
        self._decoder, self._output = self.parts
        self._adapters = LeanAdapters(model)
        self._norms = Norms(model) if self.device.type in FUSE_NORMS else None
        self._passes = RecordedPasses(self.attention)

    @cached_property
    def is_recordable(self) -> bool:
        """See :func:`harness.score.recorded.is_recordable`; all modules are asked once."""
        return is_recordable(self.model)

    @cached_property
    def is_sharded(self) -> bool:
        """See :func:`harness.weights.sharded.is_sharded`; all modules are asked once."""
        return is_sharded(self.model)

    @property
    def attention(self) -> str:
        """Transformers' name of the attention that the model runs."""
        return attention_of(self._causal)

    def extend(self, cache: Any, keep: int, tokens: IntArray) -> Any:
        """Not used: no prefix is shared."""
        raise NotImplementedError

    def run_tree(self, cache: Any, base: int, layout: Layout) -> torch.Tensor:
        """Not used: no prefix is shared."""
        raise NotImplementedError

    def run_rows(self, rows: Sequence[IntArray]) -> torch.Tensor:
        """See :class:`Body`. Causal attention never looks right, so padding needs no mask."""
        width = max(len(row) for row in rows)
        padded = np.zeros((len(rows), width), np.int64)
        for index, row in enumerate(rows):
            padded[index, : len(row)] = row
        return self._passes.run(self._last_states, _ids(padded, self.device))

    def expecting(self, shapes: Iterable[tuple[int, int]]) -> AbstractContextManager[None]:
        """See :class:`Body`; on a GPU passes of a shape that recurs become one graph."""
        on_gpu = self.device.type == "cuda"
        return self._passes.expecting(shapes if on_gpu and self.is_recordable else ())

    def _last_states(self, ids: torch.Tensor) -> torch.Tensor:
        """Hidden states [rows * tokens, width] of ids [rows, tokens]."""
        with self._states() as states, self._lean():
            self.model(input_ids=ids, use_cache=False)
        (found,) = states
        return found[:, -ids.shape[1] :].flatten(0, 1)

    def run_alone(self, row: IntArray, positions: IntArray) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states [n, width] of one sequence, and by the same pass its `own_logits`."""
        chosen = _ids(positions, self.device) - len(row)
        with self._states(chosen) as states:
            output = self.model(input_ids=_ids(row, self.device)[None], use_cache=False)
        (found,) = states
        return found[0, -len(row) :], output.logits[0]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """See :class:`Body`. The causal model's own forward, with ``hidden`` from its decoder."""
        output = self._output(last_hidden_state=hidden[None])
        dummy = torch.zeros((1, 1), dtype=torch.long, device=self.device)
        with _standing_in(self._decoder, output):
            logits: torch.Tensor = self._causal(input_ids=dummy, use_cache=False).logits
        return logits[0]

    def log_probs(
        self, hidden: torch.Tensor, rows: IntArray, targets: IntArray
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """See :class:`Body`."""
        places, which = np.unique(rows, return_inverse=True)
        order = np.argsort(which, kind="stable")
        log_probs, greedy = np.empty(len(rows)), np.empty(len(rows), np.bool_)
        step = self._positions_at_once()
        for start in range(0, len(places), step):
            chunk = places[start : start + step]
            low, high = np.searchsorted(which[order], [start, start + len(chunk)])
            asked = order[low:high]
            log_probs[asked], greedy[asked] = _read_logits(
                self.logits(hidden[_ids(chunk, self.device)]),
                _ids(which[asked] - start, self.device),
                _ids(targets[asked], self.device),
            )
        return log_probs, greedy

    def own_logits(self, row: IntArray, positions: IntArray) -> torch.Tensor:
        """Logits [m, words] at ``positions`` of one sequence by the model's own forward pass."""
        return self.run_alone(row, positions)[1]

    def _positions_at_once(self) -> int:
        size = LOGIT_BYTES.get(self.device.type, LOGIT_BYTES["cpu"])
        return max(16, size // (4 * int(self._config.get_text_config().vocab_size)))

    @contextmanager
    def _lean(self) -> Iterator[None]:
        """While this is open, the model's passes are made of fewer operations."""
        norms = nullcontext() if self._norms is None else self._norms.used()
        with self._adapters.used(), norms:
            yield

    @contextmanager
    def _states(self, handed_on: torch.Tensor | None = None) -> Iterator[list[torch.Tensor]]:
        """The decoder's last states; the model goes on with the last position, or those chosen."""
        states: list[torch.Tensor] = []

        def take(_: Any, __: Any, output: Any) -> Any:
            found = output.last_hidden_state
            states.append(found)
            kept = found[:1, -1:] if handed_on is None else found[:, found.shape[1] + handed_on]
            return self._output(last_hidden_state=kept)

        hook = self._decoder.register_forward_hook(take)
        try:
            yield states
        finally:
            hook.remove()

    def _find_decoder(self) -> tuple[Any, type]:
        """The module whose output the causal model turns into logits, and the output's type."""
        causal = self._causal
        names = dict.fromkeys((getattr(causal, "base_model_prefix", ""), "model", "transformer"))
        candidates = [getattr(causal, name, None) for name in names if name]
        candidates.append(causal.get_decoder() if hasattr(causal, "get_decoder") else None)
        outputs: dict[int, Any] = {}
        found = [m for m in candidates if isinstance(m, torch.nn.Module) and m is not causal]
        hooks = [
            module.register_forward_hook(lambda m, _, output: outputs.update({id(m): output}))
            for module in found
        ]
        try:
            causal(input_ids=torch.zeros((1, 2), dtype=torch.long, device=self.device))
        finally:
            for hook in hooks:
                hook.remove()
        for module in found:
            output = outputs.get(id(module))
            if getattr(output, "last_hidden_state", None) is not None:
                return module, type(output)
        msg = "no decoder with hidden states inside the model"
        raise TypeError(msg)


class TreeBody(RowsBody):
    """A decoder that runs sequences with a common prefix as one tree over a shared cache.

    Masks are the model's own (see :mod:`harness.score.mask`), so windows, chunks and layers that
    alternate are kept. Sliding layers keep all of their keys, since a path may be taken back.
    """

    way: ClassVar[str] = "shared prefixes"
    takes_trees: ClassVar[bool] = True
    _token_bytes: int | None = None

    def token_bytes(self) -> int:
        """Bytes of the keys and values of one token; the first pass tells them."""
        if self._token_bytes is None:
            self.extend(None, 0, np.zeros(1, np.int64))
        assert self._token_bytes is not None  # noqa: S101 - noted by the pass
        return self._token_bytes

    def extend(self, cache: Any, keep: int, tokens: IntArray) -> Any:
        """See :class:`Body`."""
        from transformers import DynamicCache

        cache = DynamicCache() if cache is None else cache
        _crop(cache, keep)
        with self._lean():
            self._decoder(
                input_ids=_ids(tokens, self.device)[None],
                position_ids=_ids(np.arange(keep, keep + len(tokens)), self.device)[None],
                past_key_values=cache,
                use_cache=True,
            )
        self._token_bytes = _token_bytes(cache)
        return cache

    def continued(self, ids: torch.Tensor, positions: torch.Tensor, cache: Any) -> torch.Tensor:
        """Hidden states [rows, 1, width] of one more token [rows, 1] of each row of a cache."""
        with self._lean():
            states: torch.Tensor = self._decoder(
                input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True
            ).last_hidden_state
        return states

    def run_tree(self, cache: Any, base: int, layout: Layout) -> torch.Tensor:
        """See :class:`Body`.

        Raises:
            ValueError: the model makes its masks in a way that leaves the tree out.
        """
        from transformers import DynamicCache

        cache = DynamicCache() if cache is None else cache
        _crop(cache, base)
        tree = TreeMask(base, layout, self.device)
        with tree_masks(self.attention, tree), self._lean():
            states: torch.Tensor = self._decoder(
                input_ids=_ids(layout.tokens, self.device)[None],
                position_ids=_ids(layout.depths, self.device)[None],
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
        if not tree.calls:
            msg = "the model makes its attention masks in a way of its own"
            raise ValueError(msg)
        return states[0]


@contextmanager
def _standing_in(module: Any, output: Any) -> Iterator[None]:
    """While this is open, the module returns ``output`` whatever it is called with."""
    own = module.__dict__.get("forward")
    module.forward = lambda *_, **__: output
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _ids(values: IntArray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(device)


def _token_bytes(cache: Any) -> int:
    return sum(
        tensor[:, :, :1].numel() * tensor.element_size()
        for layer in cache.layers
        for tensor in (layer.keys, layer.values)
    )


def _crop(cache: Any, keep: int) -> None:
    surplus = cache.get_seq_length() - keep
    if surplus > 0:
        cache.crop(-surplus)


def _read_logits(
    logits: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Log-softmax of ``logits`` [p, words] at (rows, targets); rows rise. And if the argmax.

    It is torch's float32 log-softmax, as in lm-eval, whose rounding (about 2e-5 a token at
    49,152 words) cancels in a comparison. On a CPU a few rows are worked on at a time, so that
    they are read from memory once instead of once for each operation.
    """
    exact = logits.dtype == torch.float32
    size = CACHED_ROWS if logits.device.type == "cpu" else max(1, len(logits))
    log_probs, greedy = [], []
    for start in range(0, len(logits), size):
        block = logits[start : start + size]
        low, high = torch.searchsorted(rows, torch.tensor([start, start + size]).to(rows)).tolist()
        here, asked = rows[low:high] - start, targets[low:high]
        found = torch.log_softmax(block, dim=-1, dtype=torch.float32)
        chosen = found[here, asked]
        log_probs.append(chosen)
        # Equal 16-bit logits are common, and then the first counts; equal float32 ones are not.
        top = found.amax(dim=-1)[here] == chosen if exact else _likeliest(block)[here] == asked
        greedy.append(top)
    return torch.cat(log_probs).double().cpu().numpy(), torch.cat(greedy).cpu().numpy()


def _likeliest(logits: torch.Tensor) -> torch.Tensor:
    """The first of the largest logits of each row; on a CPU by NumPy, 20 times as fast in 16 bits.

    NumPy knows no bfloat16, and float32 holds every 16-bit number.
    """
    if logits.device.type != "cpu":
        return logits.argmax(dim=-1)
    return torch.from_numpy(logits.float().numpy().argmax(axis=-1))
