"""Body: a causal language model taken apart into hidden states and vocabulary projection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from harness.score.schedule import IntArray, Layout, Tree, lay_out

LOGIT_BYTES = {"cpu": 64 << 20, "cuda": 256 << 20}  # of float32 logits that exist at a time
CACHED_ROWS = 8  # rows of logits that stay in a processor's cache from one operation to the next
TOLERANCE = 1e-3  # of logits; a model of another structure is off by whole units


class Body(Protocol):
    """What :class:`harness.score.likelihood.Likelihood` asks of a model."""

    takes_trees: bool
    device: torch.device

    def extend(self, cache: Any, keep: int, tokens: IntArray) -> Any:
        """Run tokens after the first ``keep`` cached ones; the cache then holds both."""

    def run_tree(self, cache: Any, base: int, layout: Layout) -> torch.Tensor:
        """Hidden states [n, width] of a tree over the first ``base`` cached tokens."""

    def run_rows(self, rows: Sequence[IntArray]) -> torch.Tensor:
        """Hidden states [rows * longest, width], padded on the right."""

    def log_probs(
        self, hidden: torch.Tensor, rows: IntArray, targets: IntArray
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Log-probability of ``targets`` [m] after the states at ``rows`` [m]; and if likeliest."""


class SplitBody:
    """A transformers decoder whose last hidden states feed one projection.

    The projection is computed for the asked positions only, a bounded number at a time, in the
    model's dtype; its log-softmax is float32.
    """

    takes_trees = True

    def __init__(self, causal: Any) -> None:
        """Take a transformers causal model (adapter layers inside it are fine)."""
        self._decoder = getattr(causal, causal.base_model_prefix)
        self._head = causal.get_output_embeddings()
        self._config = causal.config
        self.device: torch.device = causal.device
        self._dtype: torch.dtype = causal.dtype
        self._boolean_masks = self._config._attn_implementation == "sdpa"  # noqa: SLF001

    def extend(self, cache: Any, keep: int, tokens: IntArray) -> Any:
        """See :class:`Body`."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self._config) if cache is None else cache
        _crop(cache, keep)
        self._decoder(
            input_ids=self._ids(tokens)[None],
            position_ids=self._ids(np.arange(keep, keep + len(tokens)))[None],
            past_key_values=cache,
            use_cache=True,
        )
        return cache

    def run_tree(self, cache: Any, base: int, layout: Layout) -> torch.Tensor:
        """See :class:`Body`."""
        size = len(layout.tokens)
        mask = torch.ones((1, 1, size, base + size), dtype=torch.bool, device=self.device)
        mask[0, 0, :, base:] = torch.from_numpy(layout.sees).to(self.device)
        if not self._boolean_masks:
            least = torch.finfo(self._dtype).min
            mask = torch.zeros(mask.shape, dtype=self._dtype, device=self.device).masked_fill_(
                ~mask, least
            )
        if cache is not None:
            _crop(cache, base)
        states: torch.Tensor = self._decoder(
            input_ids=self._ids(layout.tokens)[None],
            position_ids=self._ids(layout.depths)[None],
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        return states[0]

    def run_rows(self, rows: Sequence[IntArray]) -> torch.Tensor:
        """See :class:`Body`. Causal attention never looks right, so padding needs no mask."""
        width = max(len(row) for row in rows)
        padded = np.zeros((len(rows), width), np.int64)
        for index, row in enumerate(rows):
            padded[index, : len(row)] = row
        states: torch.Tensor = self._decoder(
            input_ids=self._ids(padded), use_cache=False
        ).last_hidden_state
        return states.flatten(0, 1)

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
            logits = self._head(hidden[self._ids(chunk)])
            log_probs[asked], greedy[asked] = _read_logits(
                logits, self._ids(which[asked] - start), self._ids(targets[asked])
            )
        return log_probs, greedy

    def _positions_at_once(self) -> int:
        size = LOGIT_BYTES.get(self.device.type, LOGIT_BYTES["cpu"])
        return max(16, size // (4 * int(self._config.get_text_config().vocab_size)))

    def _ids(self, values: IntArray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(self.device)


class WholeBody:
    """Any causal model, called whole, one sequence at a time: slow, and right for every model."""

    takes_trees = False

    def __init__(self, model: Any) -> None:
        """Take a model that maps ``input_ids`` [1, n] to logits [1, n or more, words]."""
        self._model = model
        self.device: torch.device = model.device

    def extend(self, cache: Any, keep: int, tokens: IntArray) -> Any:
        """Not used: every sequence is a row."""
        raise NotImplementedError

    def run_tree(self, cache: Any, base: int, layout: Layout) -> torch.Tensor:
        """Not used: every sequence is a row."""
        raise NotImplementedError

    def run_rows(self, rows: Sequence[IntArray]) -> torch.Tensor:
        """Logits in place of hidden states; virtual tokens of a soft prompt are cut off."""
        (row,) = rows
        ids = torch.from_numpy(np.ascontiguousarray(row, np.int64))[None].to(self.device)
        logits: torch.Tensor = self._model(input_ids=ids).logits[0, -len(row) :]
        return logits

    def log_probs(
        self, hidden: torch.Tensor, rows: IntArray, targets: IntArray
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """See :class:`Body`."""
        index = torch.from_numpy(np.arange(len(rows))).to(self.device)
        asked = torch.from_numpy(targets).to(self.device)
        return _read_logits(hidden[torch.from_numpy(rows).to(self.device)], index, asked)


def open_body(model: Any) -> SplitBody | WholeBody:
    """Take a model apart where that provably gives its own logits, else leave it whole.

    A short random tree is run both ways: soft prompts, sliding windows, recurrent layers, scaled
    or capped logits all show up there.
    """
    whole = WholeBody(model)
    causal = model.get_base_model() if hasattr(model, "peft_config") else model
    prefix = getattr(causal, "base_model_prefix", "")
    if not prefix or not hasattr(causal, prefix) or causal.get_output_embeddings() is None:
        return whole
    split = SplitBody(causal)
    return split if _agree(split, whole) else whole


@torch.inference_mode()
def _agree(split: SplitBody, whole: WholeBody) -> bool:
    """Whether a tree over a cached prefix gives the logits of the whole model."""
    words = int(split._config.get_text_config().vocab_size)  # noqa: SLF001
    drawn = np.random.default_rng(0).integers(0, words, 24)
    inputs = [drawn[:16], np.concatenate([drawn[:12], drawn[16:20]]), drawn[4:]]
    tree = Tree(8, (0, 1))
    try:
        cache = split.extend(None, 0, drawn[:8])
        layout = lay_out(inputs, tree)
        states = split.run_tree(cache, 8, layout)
        ours = [states[layout.paths[i][-1]] for i in tree.members]
        ours.append(split.run_rows([inputs[2]])[-1])
        logits = split._head(torch.stack(ours)).float()  # noqa: SLF001
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return False
    theirs = torch.stack([whole.run_rows([row])[-1] for row in inputs]).float()
    scale = TOLERANCE if split._dtype == torch.float32 else 0.1  # noqa: SLF001
    return bool((logits - theirs).abs().max() <= scale * max(1.0, float(theirs.abs().max())))


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
        top = found.amax(dim=-1)[here] == chosen if exact else block.argmax(dim=-1)[here] == asked
        greedy.append(top)
    return torch.cat(log_probs).double().cpu().numpy(), torch.cat(greedy).cpu().numpy()
