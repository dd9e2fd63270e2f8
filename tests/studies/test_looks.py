"""Looks: what is decided at which number of seeds, and what keeps a comparison open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.records.record import Score
from harness.report.pairing import Aligned
from harness.report.sample import make_scale
from harness.studies.error_spending import levels
from harness.studies.family import Family, restrict
from harness.studies.looks import FAR, SMALLEST_LEVEL, Following, follow
from harness.studies.rules import Rule

CLUSTERS = 40
ALPHA = 0.05
SCALE = make_scale(
    [
        Score(
            task="held_out",
            metric="perplexity",
            stage="after",
            value=8.0,
            standard_error=None,
            n=CLUSTERS,
            unit="per token",
            direction="lower",
            transform="exp",
        )
    ],
    0.01,
)


def made(
    worse: dict[str, float],
    seeds: int,
    seed_sd: float = 0.002,
    item_sd: float = 0.01,
    own_sd: float = 0.0,
) -> Aligned:
    """Runs of a reference and of variants that are so much worse, with noise of all kinds.

    ``own_sd`` is how differently two variants take the same items, whatever the seed.
    """
    random = np.random.default_rng(11)
    trees = 2.0 + 0.3 * random.standard_normal(CLUSTERS)
    labels, columns, numbers = [], [], []
    for label, more in {"reference": 0.0, **worse}.items():
        own = more + own_sd * random.standard_normal(CLUSTERS)
        for seed in range(seeds):
            labels.append(label)
            numbers.append(seed)
            noise = item_sd * random.standard_normal(CLUSTERS)
            columns.append(trees + own + seed_sd * random.standard_normal() + noise)
    return Aligned(
        labels=tuple(labels),
        seeds=tuple(numbers),
        trains=(True,) * len(labels),
        numerator=np.column_stack(columns),
        denominator=np.ones((CLUSTERS, len(labels))),
        group=np.arange(CLUSTERS),
    )


def rule(*counts: int, alpha: float = ALPHA) -> Rule:
    return Rule(((counts, alpha),))


def levels_of(looks: Rule, arms: int) -> list[float]:
    """The level of every look for one of so many arms whose runs all end well."""
    return [look.levels(arms, look.counts_so_far)[0] for look in looks.looks()]


def without(aligned: Aligned, label: str, *seeds: int) -> Aligned:
    """The runs that are left where an arm's failed at these seeds."""
    runs = zip(aligned.labels, aligned.seeds, strict=True)
    kept = [run for run, (name, seed) in enumerate(runs) if name != label or seed not in seeds]
    return aligned.take(kept)


def followed(
    aligned: Aligned | None,
    labels: tuple[str, ...],
    ready: dict[str, int],
    looks: Rule,
    dropped: frozenset[str] = frozenset(),
) -> Following:
    return follow(Family(aligned, SCALE, "reference", labels, ready, dropped), looks)


def test_a_clear_difference_is_decided_at_an_early_look() -> None:
    found = followed(made({"a": 0.2}, 6), ("a",), {"reference": 6, "a": 6}, rule(2, 3, 4, 5, 6))
    conclusion = found.conclusions["a"]
    assert conclusion.decided
    assert conclusion.difference is not None
    assert conclusion.difference.verdict == "worse"
    assert conclusion.seeds < 6, "no more seeds are spent on it"
    assert found.looks[-1] == conclusion.seeds
    assert found.wanted == {}


def test_equal_variants_are_shown_to_be_equal_within_the_margin() -> None:
    aligned = made({"a": 0.0}, 6, seed_sd=0.0005, item_sd=0.002)
    found = followed(aligned, ("a",), {"reference": 6, "a": 6}, rule(2, 3, 4, 5, 6))
    difference = found.conclusions["a"].difference
    assert difference is not None
    assert difference.verdict == "equivalent"


def test_the_levels_of_all_looks_stay_within_the_error() -> None:
    """Errors of looks at growing data add up to at most the error of the whole."""
    used = levels_of(rule(2, 3, 4, 5, 6), arms=1)
    assert used == sorted(used), "little at first"
    assert used[-1] < ALPHA
    shared = levels_of(rule(2, 3, 4, 5, 6), arms=2)
    assert all(two < one for one, two in zip(used, shared, strict=True))


def test_a_variant_that_is_decided_leaves_no_error_to_the_others() -> None:
    aligned = made({"a": 0.3, "b": 0.004}, 6, seed_sd=0.02)
    ready = {"reference": 6, "a": 6, "b": 6}
    found = followed(aligned, ("a", "b"), ready, rule(6)).conclusions
    assert found["a"].decided
    assert found["a"].level == found["b"].level == pytest.approx(ALPHA / 2, rel=1e-3)


def test_runs_that_are_missing_are_wanted_and_the_comparison_waits() -> None:
    found = followed(made({"a": 0.0}, 2), ("a",), {"reference": 2, "a": 1}, rule(2, 3))
    assert found.looks == []
    assert found.wanted == {"a": 2}
    assert found.conclusions["a"].limit == "waiting"
    assert found.conclusions["a"].difference is None


def test_the_reference_is_wanted_too() -> None:
    found = followed(made({"a": 0.0}, 3), ("a",), {"reference": 2, "a": 3}, rule(2, 3))
    assert found.looks in ([2], [])
    assert found.wanted == {"reference": 3}


def test_a_dropped_variant_is_waited_for_no_longer() -> None:
    found = followed(
        made({"a": 0.001, "b": 0.001}, 2, item_sd=0.1, seed_sd=0.05),
        ("a", "b"),
        {"reference": 3, "a": 2, "b": 3},
        rule(3),
        frozenset({"a"}),
    )
    assert found.conclusions["a"].limit == "dropped"
    assert "a" not in found.wanted


def test_what_is_still_open_at_the_last_look_is_limited_by_seeds() -> None:
    aligned = made({"a": 0.012}, 3, seed_sd=0.03, item_sd=0.001)
    found = followed(aligned, ("a",), {"reference": 3, "a": 3}, rule(2, 3))
    assert found.looks == [2, 3]
    assert found.conclusions["a"].limit == "seeds"
    assert not found.conclusions["a"].decided


def test_where_items_are_the_noise_no_number_of_seeds_is_spent() -> None:
    aligned = made({"a": 0.003}, 6, seed_sd=0.0001, item_sd=0.001, own_sd=0.05)
    found = followed(aligned, ("a",), {"reference": 6, "a": 6}, rule(2, 3, 4, 5, 6))
    conclusion = found.conclusions["a"]
    assert conclusion.limit == "items"
    assert conclusion.seeds == 2
    assert not conclusion.decided


def test_an_arm_that_is_given_up_keeps_its_part_of_the_error() -> None:
    """Items limit "a", a person drops "b"."""
    aligned = made({"a": 0.003, "b": 0.0, "c": 0.012}, 6, seed_sd=0.0001, item_sd=0.03, own_sd=0.03)
    ready = {"reference": 6, "a": 6, "b": 1, "c": 6}
    looks = rule(2, 3, 4, 5, 6)
    found = followed(aligned, ("a", "b", "c"), ready, looks, frozenset({"b"})).conclusions
    assert [found[label].limit for label in "abc"] == ["items", "dropped", "items"]
    assert found["c"].level == pytest.approx(max(levels_of(looks, arms=3)[0], SMALLEST_LEVEL))


def test_the_order_of_arms_does_not_matter() -> None:
    """Of these ten, some are limited by items."""
    worse = {f"v{number}": 0.0025 * number for number in range(10)}
    aligned = made(worse, 5, seed_sd=0.002, item_sd=0.02, own_sd=0.02)
    ready, labels = dict.fromkeys(("reference", *worse), 5), tuple(worse)
    one, other = (followed(aligned, order, ready, rule(2, 3, 4, 5)).conclusions
                  for order in (labels, labels[::-1]))  # fmt: skip
    assert {one[label].limit for label in labels} >= {"", "items"}
    assert all(one[label] == other[label] for label in labels)


def test_one_pair_of_seeds_does_not_say_that_items_limit_it() -> None:
    """A run of the reference failed: at the first look no comparison has a second pair."""
    aligned = without(made({"a": 0.3, "b": 0.6}, 5), "reference", 1)
    ready = dict.fromkeys(("reference", "a", "b"), 5)
    found = followed(aligned, ("a", "b"), ready, rule(2, 3, 4, 5)).conclusions
    for label in "ab":
        difference = found[label].difference
        assert difference is not None
        assert difference.verdict == "worse"
        assert (found[label].pairs, found[label].seeds) in ((2, 3), (3, 4), (4, 5))


def test_a_common_seed_that_is_missing_may_come() -> None:
    aligned = without(without(made({"a": 0.3}, 5), "reference", 1), "a", 0)
    ready = {"reference": 5, "a": 5}
    assert followed(aligned, ("a",), ready, rule(2, 3, 4, 5)).conclusions["a"].pairs >= 2
    short = followed(restrict(aligned, {"reference": 2, "a": 2}), ("a",), ready, rule(2))
    assert short.conclusions["a"].limit == "unpaired"


def test_a_failed_run_counts_as_a_pair_less_in_the_level() -> None:
    """The last look spends what is left, however many pairs it has."""
    aligned = without(made({"a": 0.004}, 4, seed_sd=0.02), "a", 2)
    found = followed(aligned, ("a",), {"reference": 4, "a": 4}, rule(2, 3, 4))
    assert found.conclusions["a"].pairs == 3
    expected = levels(ALPHA, (0.5, 0.75, 1.0), (2, 2, 3))[-1]
    assert found.conclusions["a"].level == pytest.approx(expected)


def test_without_training_there_is_one_look_at_the_whole_part() -> None:
    """Seeds change nothing; the arm that seeds decide is told at its own looks."""
    aligned = made({"base": 0.03, "a": 0.3}, 1, item_sd=0.04)
    untrained = replace(aligned, trains=(False, False, True))
    ready = {"reference": FAR, "base": FAR, "a": 0}
    early = followed(untrained, ("base",), ready, rule(2, 3, 4, 5)).conclusions["base"]
    fixed = followed(untrained, ("base",), ready, rule(5)).conclusions["base"]
    assert early.difference is not None
    assert fixed.difference is not None
    assert early.difference.verdict == fixed.difference.verdict == "worse"
    assert early.difference.p_value is not None
    assert levels_of(rule(2, 3, 4, 5), 1)[0] < early.difference.p_value < early.level
    assert early.level == fixed.level == ALPHA
    assert early.pairs == 0


def test_runs_that_are_left_out_are_told_from_runs_that_failed() -> None:
    aligned = restrict(made({"a": 0.0}, 2), {"reference": 2})
    ready = {"reference": 2, "a": 2}
    why = {"a": "scored on other items"}
    found = follow(Family(aligned, SCALE, "reference", ("a",), ready, excluded=why), rule(2))
    assert (found.conclusions["a"].limit, found.conclusions["a"].why) == ("excluded", why["a"])


def test_a_variant_whose_runs_failed_is_told_from_a_reference_whose_did() -> None:
    ready = {"reference": 2, "a": 2}
    failed = restrict(made({"a": 0.0}, 2), {"reference": 2})
    assert followed(failed, ("a",), ready, rule(2)).conclusions["a"].limit == "failed"
    alone = restrict(made({"a": 0.0}, 2), {"a": 2})
    assert followed(alone, ("a",), ready, rule(2)).conclusions["a"].limit == "reference"
    assert followed(None, ("a",), ready, rule(2)).conclusions["a"].limit == "failed"


def test_later_stretches_of_looks_come_after_the_planned_ones() -> None:
    longer = Rule((((2, 3), 0.04), ((4, 5), 0.005)))
    assert longer.last == 5
    assert [look.count for look in longer.looks()] == [2, 3, 4, 5]
    found = levels_of(longer, arms=1)
    assert max(found[2:]) < 0.005 + 1e-9, "what was kept for them"


def test_only_first_seeds_of_named_arms_are_kept() -> None:
    aligned = made({"a": 0.1, "b": 0.2}, 4)
    part = restrict(aligned, {"reference": 2, "b": 3})
    assert part.labels == ("reference",) * 2 + ("b",) * 3
    assert part.seeds == (0, 1, 0, 1, 2)
    np.testing.assert_array_equal(part.numerator[:, 2:], aligned.numerator[:, 8:11])
    assert part.numerator.flags.c_contiguous


def test_an_untrained_arm_is_kept_whatever_its_seed() -> None:
    aligned = made({"a": 0.1}, 2)
    untrained = Aligned(
        **{**vars(aligned), "trains": (False, False, True, True), "seeds": (5, 6, 0, 1)}
    )
    assert restrict(untrained, {"reference": 1, "a": 1}).seeds == (5, 6, 0)
