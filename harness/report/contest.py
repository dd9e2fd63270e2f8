"""Contest: which rows may be the best, and which are shown to lie within the margin of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.sample import Sample, Scale
from harness.report.statistics.effects import Effect
from harness.report.statistics.moderation import moderate

ALPHA = 0.05


@dataclass(frozen=True)
class Contest:
    """What all comparisons of some rows with each other say together.

    With 95 % confidence the best row is among ``may_be_best``, and every row of ``near_best`` is
    worse than it by less than the margin. ``unjudged`` rows take no part, since one training, a
    few items or others than those of the other rows do not tell.
    """

    may_be_best: tuple[str, ...]
    near_best: tuple[str, ...]
    unjudged: tuple[str, ...]


def hold_contest(
    sample: Sample, scale: Scale, labels: Sequence[str], *, alpha: float = ALPHA
) -> Contest:
    """Multiple comparisons with the best.

    A row may be the best unless another one beats it; it is near the best if none can beat it by
    the margin. Only the comparisons with the row that truly is the best can go wrong, ``k - 1``
    of them, so each gets ``alpha / (k - 1)`` (Bonferroni for Dunnett's quantile). Source: Hsu,
    "Constrained simultaneous confidence intervals for multiple comparisons with the best" (1984).

    Args:
        sample: the runs of the score.
        scale: its scale and margin.
        labels: the rows that compete.
        alpha: chance that any of it is wrong.
    """
    judged = [label for label in labels if _can_be_judged(sample, label, labels)]
    unjudged = tuple(label for label in labels if label not in judged)
    if len(judged) < 2:
        return Contest((), (), tuple(labels))
    each = alpha / (len(judged) - 1)
    beaten: set[str] = set()
    close: dict[str, bool] = dict.fromkeys(judged, True)
    for rival in judged:
        gaps = _worse_by(sample, scale, judged, rival)
        for label in judged:
            if label == rival:
                continue
            worse, within = _judge(gaps.get(label), scale, each)
            if worse:
                beaten.add(label)
            close[label] = close[label] and within
    return Contest(
        may_be_best=tuple(label for label in judged if label not in beaten),
        near_best=tuple(label for label in judged if close[label]),
        unjudged=unjudged,
    )


def _judge(worse_by: Effect | None, scale: Scale, alpha: float) -> tuple[bool, bool]:
    """Whether a row is shown to be worse than its rival, and worse by less than the margin."""
    if worse_by is None:
        return False, False
    if worse_by.obstacle:
        return False, worse_by.obstacle == "identical" and scale.relative
    low, high = worse_by.interval(alpha)
    return low > 0, high < scale.bound


def _can_be_judged(sample: Sample, label: str, labels: Sequence[str]) -> bool:
    """Whether a row has what a statement about its variant needs: items, and seeds if trained."""
    own = sample.own(label) if sample.columns(label) else None
    if own is None or own.obstacle == "few items":
        return False
    rivals = [rival for rival in labels if rival != label]
    if sample.trains(label) and own.seeds < 2:
        return False
    found = [sample.paired(label, rival) for rival in rivals if sample.seeds(rival)]
    return any(effect is not None and effect.obstacle != "one training" for effect in found)


def _worse_by(sample: Sample, scale: Scale, labels: Sequence[str], rival: str) -> dict[str, Effect]:
    """By how much every other row is worse than ``rival``, seed variances moderated."""
    found = {
        label: effect
        for label in labels
        if label != rival and (effect := sample.paired(label, rival)) is not None
    }
    trained = [label for label in found if sample.trains(label)]
    noises = moderate(
        [found[label].noise for label in trained],
        [found[label].seeds for label in trained],
        correlated=sample.trains(rival),
    )
    effects = found | {
        label: found[label].with_noise(noise) for label, noise in zip(trained, noises, strict=True)
    }
    return {
        label: effect if scale.sign > 0 else effect.negated() for label, effect in effects.items()
    }
