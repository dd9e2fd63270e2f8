"""Cross-entropy on a processor: losses and their gradient, a few rows of logits at a time."""

from __future__ import annotations

import torch
from torch import Tensor

CACHED_ROWS = 8  # whose logits stay in a processor's cache from one operation to the next


def cross_entropy_on_processor_(logits: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """Loss of each row (nats); ``logits`` turn into ``scale`` times their gradient.

    ``logits`` are (rows, words), ``targets`` (rows); rows with a negative target carry neither.
    Exponentials are summed in float32, or in the logits' own dtype where that is float64.
    """
    parts = zip(torch.split(logits, CACHED_ROWS), torch.split(targets, CACHED_ROWS), strict=True)
    return torch.cat([_of_few_(few, goals, scale) for few, goals in parts])


def _of_few_(logits: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    carries = targets >= 0
    chosen = (torch.arange(len(targets)), targets.clamp(min=0))
    exact = logits if logits.dtype == torch.float64 else logits.float()
    highest = exact.amax(dim=1, keepdim=True)
    of_target = exact[chosen] - highest[:, 0]
    exact.sub_(highest).exp_()
    total = exact.sum(dim=1, keepdim=True)
    exact.mul_((scale * carries)[:, None] / total)
    exact[chosen] -= scale * carries
    if exact is not logits:
        logits.copy_(exact)
    return (total[:, 0].log_() - of_target) * carries
