"""How scores, differences, costs and endings are written, each in its own terms."""

from __future__ import annotations

import pytest

from harness import numbers
from harness.records.record import Problem
from harness.report.cells import (
    difference_text,
    ending,
    judged_cell,
    score_cell,
    show_difference,
    show_limit,
    spread_cell,
)
from harness.report.judging import Difference
from harness.report.pairing import ScoreKey
from harness.report.sample import Scale, make_scale
from harness.report.scoring import RowScore, Scoring
from harness.report.statistics.effects import Effect
from harness.report.statistics.noise import Noise
from tests.planned import planned
from tests.records.test_store import score
from tests.store_records import record_of

EFFECT = Effect(0.0, Noise(1.0, 10.0), 3, 20)


def scale(unit: str, value: float = 0.5, *, transform: str = "identity") -> Scale:
    update = {"unit": unit, "direction": "higher", "transform": transform}
    return make_scale([score("acc", value, "after").model_copy(update=update)], 0.01)


PERPLEXITY, SHARE, POINTS = (
    scale("per token", transform="exp"),
    scale("fraction"),
    scale("points", 40.0),
)


def scoring(of: Scale, **values: RowScore) -> Scoring:
    return Scoring(ScoreKey("t", "m", "training"), of, headline=True, values=values, excluded={})


def difference(estimate: float, low: float | None, high: float | None, **more: str) -> Difference:
    verdict, obstacle = more.get("verdict", "undecided"), more.get("obstacle", "")
    return Difference("b", estimate, low, high, None, None, verdict, obstacle, EFFECT)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("of", "text"), [(PERPLEXITY, "+1.20 %"), (SHARE, "+1.20 points"), (POINTS, "+0.0120")]
)
def test_a_difference_is_relative_in_points_or_in_units(of: Scale, text: str) -> None:
    assert show_difference(scoring(of), 0.012) == text


@pytest.mark.parametrize(
    ("of", "value", "text"),
    [
        (PERPLEXITY, 0.01, "1 %"),
        (PERPLEXITY, 0.005, "0.5 %"),
        (SHARE, 0.01, "1 point"),
        (SHARE, 0.025, "2.5 points"),
        (POINTS, 0.5, "0.5"),
    ],
)
def test_a_limit_is_written_as_a_user_would(of: Scale, value: float, text: str) -> None:
    assert show_limit(scoring(of), value) == text


def test_an_interval_is_left_out_where_there_is_none() -> None:
    told = scoring(SHARE)
    assert difference_text(told, difference(0.02, None, None)) == "+2.00 points"
    assert (
        difference_text(told, difference(0.02, -0.01, 0.05))
        == "+2.00 points [−1.00 points, +5.00 points]"
    )


def test_a_value_stands_with_ends_as_fine_as_its_interval() -> None:
    known = RowScore(6.9, 4.52, 10.71, 1.4, 24, 3)
    bare = RowScore(4.972, None, None, None, 2, 3)
    told = scoring(PERPLEXITY, a=known, b=bare)
    assert score_cell(told, "a").text == "6.900 [4.5, 10.7]"
    assert score_cell(told, "b").text == "4.972"
    assert score_cell(told, "c").text == numbers.UNKNOWN


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "–"),
        ([2.0], "2.0 s"),
        ([1.0, 2.0, 4.0], "2.0 s (1.0–4.0 s)"),
        ([0.05, 0.2], "0.1 s (50 ms–0.2 s)"),
        ([90.0, 130.0], "1 min 50 s (90.0 s–2 min 10 s)"),
    ],
)
def test_costs_are_medians_with_the_lowest_and_the_highest(values: list[float], text: str) -> None:
    assert spread_cell(values, numbers.duration).text == text


@pytest.mark.parametrize(
    ("verdict", "obstacle", "text"),
    [
        ("worse", "", "worse"),
        ("undecided", "", "undecided"),
        ("undecided", "few items", "undecided (fewer than 8 groups of items)"),
        ("differs", "one training", "differs on these items (one training each)"),
        ("equivalent", "identical", "identical on every item"),
    ],
)
def test_a_verdict_says_why_there_is_none(verdict: str, obstacle: str, text: str) -> None:
    found = judged_cell(difference(0.0, None, None, verdict=verdict, obstacle=obstacle))
    assert found.text == text
    assert found.sort == verdict


def test_a_run_that_failed_says_how_and_in_which_phase() -> None:
    record = record_of(planned())
    problem = Problem(kind="oom", phase="train", step=3, message="CUDA out of memory")
    failed = record.model_copy(update={"status": "oom", "problem": problem})
    assert ending(failed) == "out of memory in train"
    early = problem.model_copy(update={"phase": None})
    assert ending(record.model_copy(update={"status": "killed", "problem": early})) == "killed"
