"""A forest: what stands in its rows, how its scales treat few far values, and that all fits."""

from __future__ import annotations

import itertools
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.report.figures import draw
from harness.report.figures.canvas import NARROW, WIDTH, Mark
from harness.report.figures.forest import Estimate, Forest, ForestRow, Panel, cut_at

LONG = "lora_bf16+training.loss_on=everything+adapter.r={}"


def painted(forest: Forest, width: float = WIDTH) -> Any:
    with mpl.rc_context(draw.SETTINGS):
        figure = Figure(figsize=(width, 4))
        FigureCanvasAgg(figure).draw()
        forest.paint(figure)
        figure.canvas.draw()
        return figure


def change(value: float) -> Estimate:
    return Estimate(value, value - 0.3, value + 0.3, f"{value:+.2f} [{value:+.2f}, {value:+.2f}]")


def rows_of(*values: float) -> tuple[ForestRow, ...]:
    return tuple(
        ForestRow(LONG.format(n), Mark(n % 8, n % 4), (change(value),), f"row {n}")
        for n, value in enumerate(values)
    )


def texts(figure: Any) -> list[Any]:
    found = list(figure.texts)
    for axes in figure.axes:
        ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()] if axes.axison else []
        found += [*axes.texts, *ticks]
    return [text for text in found if text.get_text() and text.get_visible()]


@pytest.mark.parametrize("width", [WIDTH, NARROW])
def test_no_two_texts_overlap_and_all_fit(width: float) -> None:
    """Names, scales, titles, values and the key, in the usual width and on a phone."""
    panels = (
        Panel("perplexity against lora_bf16, %\nlower is better", 3, margin=1),
        Panel("weights, MiB", bars=True),
    )
    rows = tuple(
        ForestRow(
            LONG.format(n),
            Mark(n % 8, n % 4),
            (change(-0.4 + 0.08 * n * n), Estimate(100.0 + 10 * n, text=str(100 + 10 * n))),
            "said",
        )
        for n in range(24)
    )
    key = tuple((Mark(n, n), f"LoRA family, {n}-bit base") for n in range(7))
    figure = painted(Forest(panels, rows, key), width)
    boxes = [text.get_window_extent() for text in texts(figure)]
    assert len(boxes) >= 24 + 24 + 7, "names, bytes and the key at least"
    for one, two in itertools.combinations(boxes, 2):
        assert not one.overlaps(two)
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    assert min(box.y0 for box in boxes) >= 0
    assert max(box.y1 for box in boxes) <= figure.bbox.y1


def test_far_values_do_not_flatten_those_within_the_margin() -> None:
    """Half a per cent stays wide beside forty: the scale is logarithmic outside the margin."""
    axes = painted(Forest((Panel("change", margin=1),), rows_of(-0.1, 0.4, 9, 40))).axes[0]
    assert axes.get_xscale() == "symlog"
    ends = [
        axes.transAxes.inverted().transform(axes.transData.transform((x, 0)))[0] for x in (0, 1)
    ]
    assert ends[1] - ends[0] > 0.25
    low, high = axes.get_xlim()
    assert low < -0.4
    assert high > 40.3, "the whole interval of the farthest is there"
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["−0.5", "0", "0.5", "1", "2", "5", "10", "20"]


@pytest.mark.parametrize("width", [WIDTH, NARROW])
def test_numbers_of_a_scale_over_four_decades_do_not_run_into_each_other(width: float) -> None:
    """Two costs beside it leave little room: the margin keeps its ticks, others give way."""
    panels = (
        Panel("change", 3, margin=1),
        *(Panel(unit, bars=True) for unit in ("GiB", "s", "Wh")),
    )
    cost = Estimate(5, text="5.04")
    rows = tuple(
        ForestRow(LONG.format(n), Mark(0, 0), (change(value), cost, cost, cost), "said")
        for n, value in enumerate((-2, -1.4, 0.1, 3, 20, 600))
    )
    axes = painted(Forest(panels, rows), width).axes[0]
    shown = [label for label in axes.get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in shown]
    assert not any(one.overlaps(two) for one, two in itertools.combinations(boxes, 2))
    assert {"0", "1"} <= {label.get_text() for label in shown}
    dot = axes.transData.transform((-2, 0))[0] - axes.get_window_extent().x0
    assert dot > 3, "the best row's marker is inside"
    assert axes.get_position().width * width > 0.8, "its texts give way before it does"


def test_few_far_values_are_cut_off_and_many_are_not() -> None:
    assert cut_at([change(value) for value in (*range(19), 600)]) == pytest.approx(20, abs=1)
    assert cut_at([change(value) for value in range(20)]) is None
    assert cut_at([None, change(1), change(600)]) is None, "one of two is not few"


def test_the_recommended_row_is_ringed_and_a_limit_is_a_line() -> None:
    rows = (
        ForestRow("best", Mark(0, 0), (Estimate(5, text="5"),), "", ringed=True),
        ForestRow("other", Mark(1, 0), (Estimate(3, text="3"),), ""),
    )
    axes = painted(Forest((Panel("GiB", bars=True, limit=8),), rows)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["◉ best", "other"]
    assert axes.get_xlim()[1] > 8
    assert [tuple(line.get_xdata()) for line in axes.lines] == [(8, 8)]


def test_near_values_stand_on_an_even_scale() -> None:
    axes = painted(Forest((Panel("change", margin=1),), rows_of(-0.1, 0.4, 2))).axes[0]
    assert axes.get_xscale() == "linear"


@pytest.mark.parametrize(
    ("width", "said"), [(WIDTH, "+36.00 [+36.00, +36.00]"), (NARROW, "+36.00")]
)
def test_what_is_cut_off_is_an_arrow_with_its_value(width: float, said: str) -> None:
    """On a phone the value stands inside, since there is no room beside the panel."""
    forest = Forest((Panel("change; cut off at 3", highest=3),), rows_of(-1, 2, 36))
    axes = painted(forest, width).axes[0]
    assert axes.get_xlim()[1] == 3
    arrows = [line for line in axes.lines if line.get_marker() == ">"]
    assert [tuple(line.get_xydata()[0]) for line in arrows] == [(1, 2)], "the third row's edge"
    written = [text.get_text() for text in axes.texts]
    assert written[-1] == said
    assert len(written) == (3 if width == WIDTH else 1)


def test_the_interval_of_what_is_cut_off_shapes_no_scale() -> None:
    rows = (*rows_of(-0.2, 0.5, 30), ForestRow("far", Mark(1, 0), (Estimate(150, -70, 2000),), ""))
    axes = painted(Forest((Panel("change", margin=1, highest=40),), rows)).axes[0]
    assert -1 < axes.get_xlim()[0] < -0.2
    assert axes.get_xlim()[1] < 60


def test_every_mark_tells_its_row() -> None:
    svg = draw.draw_vector(Forest((Panel("change"),), rows_of(1, 2)), "two rows").decode()
    assert svg.count("<title>row 0</title>") == 3, "interval, dot and text"


def test_a_value_that_nobody_measured_leaves_its_place_empty() -> None:
    rows = (
        ForestRow("known", Mark(0, 0), (change(1),), ""),
        ForestRow("not", Mark(1, 0), (None,), ""),
    )
    axes = painted(Forest((Panel("change"),), rows)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["known", "not"]
    assert len(axes.texts) == 1
