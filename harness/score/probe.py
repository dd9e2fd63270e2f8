"""Probe: which ways of running a model give its own logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.score.body import Body, RowsBody, TreeBody, WholeBody
from harness.score.prefixes import IntArray, Tree, lay_out
from harness.spec.methods import needs_of
from harness.spec.variant import Adapter

TOLERANCE = 2e-4  # of float32 logits, relative to the largest; a wrong mask is off by far more
# Of 16-bit logits, the median over a stretch of positions of |difference| / |own logits|, both
# without their mean over the words. On random tokens rounding alone makes it 0.03 to 0.12
# (SmolLM2 in bfloat16, NF4 and FP4 against float32, single positions up to 0.55); a branch that
# sees its neighbour makes it 0.3 to 1.2, positions off by eight 0.3 to 0.5.
ROUGH = 0.25
SHARED, BRANCH = 16, 8  # tokens that the first two inputs of a trial share, and their rest
BASE = 8  # of the shared ones, those that are cached before the branches are run
CANNOT = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError,
          ValueError)  # fmt: skip


@dataclass(frozen=True)
class Ways:
    """Bodies of one model from the least work to the most, and why better ones were left out."""

    bodies: tuple[Body, ...]
    reason: str | None = None


@torch.inference_mode()
def find_ways(model: Any) -> Ways:
    """Try each way of running the model on short random sequences against its own forward pass."""
    whole = WholeBody(model)
    if (mixing := sees_all(model)) is not None:
        return Ways((whole,), f"what {mixing} adds to a token depends on every token of the pass")
    words = int(model.config.get_text_config().vocab_size)
    drawn = np.random.default_rng(0).integers(0, words, SHARED + 2 * BRANCH)
    second = np.concatenate([drawn[:SHARED], drawn[-BRANCH:]])
    inputs = [drawn[: SHARED + BRANCH], second, drawn[BRANCH:]]
    alone = [whole.run_rows([row]).float() for row in inputs]
    own = torch.cat(alone)
    rows, reason = _try(lambda: RowsBody(model), lambda body: _side_by_side(body, inputs), own)
    if rows is None:
        return Ways((whole,), reason)
    if soft_prompt_tokens(model):
        return Ways((rows, whole), "a soft prompt precedes every sequence")
    if _has_masks_of_its_own(model):
        return Ways((rows, whole), "the model has attention masks of its own, made for rows")
    own = torch.cat([alone[0][BASE:], alone[1][BASE:], alone[2]])
    parts = rows.parts
    tree, reason = _try(lambda: TreeBody(model, parts), lambda body: _as_tree(body, inputs), own)
    return Ways((rows, whole), reason) if tree is None else Ways((tree, rows, whole))


def _has_masks_of_its_own(model: Any) -> bool:
    """Whether a layer keeps a mask of (1, 1, positions, positions), as those of GPT-Neo do.

    It counts tokens as they lie in the pass, where branches of a tree stand one after the other,
    and it ends where the context does. Short sequences would not show it.
    """
    shapes = [buffer.shape for buffer in model.buffers() if buffer.ndim == 4]
    return any(shape[:2] == (1, 1) and shape[2] == shape[3] > 1 for shape in shapes)


def same(ours: torch.Tensor, theirs: torch.Tensor, *, exact: bool) -> bool:
    """Whether logits [m, words] agree to rounding; ``exact`` for float32 arithmetic.

    In 16 bits every stretch of ``BRANCH`` positions is judged by its median: rounding can upset
    single positions, a wrong mask or wrong positions upset all that follow. Of fewer positions
    than a stretch more is allowed.
    """
    ours, theirs = ours.float(), theirs.float()
    if exact:
        largest = max(1.0, float(theirs.abs().max()))
        return bool((ours - theirs).abs().max() <= TOLERANCE * largest)
    spread = theirs - theirs.mean(dim=-1, keepdim=True)
    apart = ours - theirs
    apart = apart - apart.mean(dim=-1, keepdim=True)
    relative = apart.norm(dim=-1) / spread.norm(dim=-1).clamp_min(torch.finfo(spread.dtype).tiny)
    parts = relative.split(BRANCH)
    return all(bool(part.median() <= ROUGH * BRANCH / len(part)) for part in parts)


def soft_prompt_tokens(model: Any) -> int:
    """Positions that the prompt, prefix or cache of a PEFT model takes; 0 for other models.

    The model's decoder lacks it, and texts have that much less of its context.
    """
    configs = getattr(model, "peft_config", {}).values()
    return sum(config.num_virtual_tokens for config in configs if config.is_prompt_learning)


def sees_all(model: Any) -> str | None:
    """The type of an adapter whose results depend on whatever is run beside them, or None.

    No comparison would show it: the difference is below that of rounding until the adapter has
    learned much.
    """
    for config in getattr(model, "peft_config", {}).values():
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        if needs_of(Adapter(type=kind)).sees_all:
            return kind
    return None


def is_exact(model: Any) -> bool:
    """Whether the same tokens give the same logits but for float32 rounding, however batched.

    Eight-bit layers quantize their inputs by what is in the batch.
    """
    return bool(model.dtype == torch.float32 and not getattr(model, "is_loaded_in_8bit", False))


def stretches_after(model: Any) -> int | None:
    """Tokens from which a position's rotary frequencies depend on the length of the pass.

    Transformers recomputes them in the forward pass for the types "dynamic" and "longrope", up
    to the longest sequence of the pass; None for a model that has neither.
    """
    limits = []
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        for layer, kind in kinds.items() if isinstance(kinds, dict) else [(None, kinds)]:
            if not isinstance(kind, str):
                continue
            if "dynamic" in kind:
                limits.append(int(module.original_max_seq_len))
            elif kind == "longrope":
                settings = module.config.rope_parameters
                settings = settings if layer is None else settings[layer]
                limits.append(int(settings["original_max_position_embeddings"]))
    return min(limits, default=None)


def _try(
    make: Callable[[], Any], run: Callable[[Any], torch.Tensor], own: torch.Tensor
) -> tuple[Any, str | None]:
    """A body whose logits agree with the model's own, or None and the reason."""
    try:
        body = make()
        found = run(body)
    except CANNOT as error:
        return None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if found.shape != own.shape or not same(found, own, exact=is_exact(body.model)):
        return None, f"{body.way} differ from the model's own forward pass"
    return body, None


def _side_by_side(body: RowsBody, inputs: list[IntArray]) -> torch.Tensor:
    """Logits of every token of all inputs, run as one padded batch."""
    hidden = body.run_rows(inputs)
    width = max(len(row) for row in inputs)
    kept = [hidden[i * width : i * width + len(row)] for i, row in enumerate(inputs)]
    return body.logits(torch.cat(kept))


def _as_tree(body: TreeBody, inputs: list[IntArray]) -> torch.Tensor:
    """Two branches over a cached prefix that was once longer, and a third without one.

    Logits of the tokens after the first ``BASE`` of the first two inputs, and of the whole third.
    """
    cache = body.extend(None, 0, inputs[0][: BASE + 3])
    layout = lay_out(inputs, Tree(BASE, (0, 1)))
    branches = body.run_tree(cache, BASE, layout)
    alone = lay_out(inputs, Tree(0, (2,)))
    third = body.run_tree(None, 0, alone)
    return body.logits(torch.cat([*(branches[layout.paths[member]] for member in (0, 1)), third]))
