"""Labels fit, stay distinct and do not overlap; every kind of drawing can be drawn."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.transforms import Bbox

from harness.report.figures import draw
from harness.report.figures.canvas import WIDTH, Axis, Mark
from harness.report.figures.histogram import Histogram
from harness.report.figures.intervals import Interval, Intervals
from harness.report.figures.lines import Curves, Line
from harness.report.figures.scatter import Point, Scatter
from harness.report.layout import LABEL_LENGTH, shorten, spread

LONG = "qlora_nf4+training.learning_rate=0.0001+training.micro_batch_size={}+adapter.r={}"


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=40),
    st.floats(0.001, 0.2),
)
def test_spread_labels_keep_their_order_and_distance(wanted: list[float], gap: float) -> None:
    placed = spread(wanted, gap, 0.0, 1.0)
    fits = (len(wanted) - 1) * gap <= 1
    least = gap if fits else 1 / (len(wanted) - 1)
    in_order = [placed[i] for i in sorted(range(len(wanted)), key=lambda index: wanted[index])]
    for lower, upper in itertools.pairwise(in_order):
        assert upper - lower >= least - 1e-9
    assert min(placed) >= -1e-9
    assert max(placed) <= 1 + 1e-9


def test_labels_that_do_not_touch_stay_where_they_want_to_be() -> None:
    assert spread([0.9, 0.1, 0.5], 0.1, 0, 1) == pytest.approx([0.9, 0.1, 0.5])
    assert spread([0.5, 0.5], 0.1, 0, 1) == pytest.approx([0.45, 0.55])


def test_long_labels_are_shortened_and_stay_distinct() -> None:
    labels = [LONG.format(micro, rank) for micro in (1, 2, 4) for rank in range(1, 70)]
    short = shorten(labels)
    assert len(set(short.values())) == len(labels)
    assert max(len(name) for name in short.values()) <= LABEL_LENGTH + 8
    assert shorten(["qlora_nf4+adapter.r=8"]) == {"qlora_nf4+adapter.r=8": "qlora_nf4+r=8"}


def marked(number: int) -> Mark:
    return Mark(number % 8, number // 8 % 8)


@pytest.mark.parametrize("count", [1, 2, 30])
def test_no_two_names_of_a_figure_overlap(count: int) -> None:
    """Read off the drawn figure: the boxes of all texts outside the axes."""
    points = tuple(
        Point(LONG.format(n, n), marked(n), 1.0 + n % 3, 5 + 0.01 * (n % 7), 4.9, 5.2)
        for n in range(count)
    )
    boxes = text_boxes(Scatter(Axis("GiB", "lower"), Axis("perplexity", "lower"), points))
    assert len(boxes) == count + 2
    for one, two in itertools.combinations(boxes, 2):
        assert not one.overlaps(two)
    assert max(box.x1 for box in boxes) <= WIDTH * 100


@pytest.mark.parametrize("count", [1, 2, 30])
def test_forest_names_fit_into_the_figure(count: int) -> None:
    rows = tuple(
        Interval(LONG.format(n, n), marked(n), 0.01 * n, 0.01 * n - 0.02, 0.01 * n + 0.02, "worse")
        for n in range(count)
    )
    for box in text_boxes(Intervals(Axis("change", percent=True), rows, 0.01)):
        assert box.x0 >= 0
        assert box.y0 >= 0


def text_boxes(drawing: object) -> list[Bbox]:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(draw.SETTINGS):
        figure = Figure()
        canvas = FigureCanvasAgg(figure)
        drawing.paint(figure)
        canvas.draw()
        axes = figure.axes[0]
        texts = [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        if isinstance(drawing, Intervals):
            texts += axes.get_yticklabels()
        return [text.get_window_extent() for text in texts if text.get_text()]


def test_a_variant_has_the_same_colour_everywhere() -> None:
    line = Line("x", Mark(2, 0), (1.0, 2.0), (1.0, 2.0))
    row = Interval("x", Mark(2, 0), 0.1, 0.0, 0.2, "worse")
    curve, _ = draw.draw(Curves(Axis("a"), Axis("b"), (line,)), "curve")
    intervals, _ = draw.draw(Intervals(Axis("a"), (row,), 0.01), "intervals")
    assert b"#009e73" in curve
    assert b"#009e73" in intervals


def test_a_figure_speaks_and_turns_dark_without_a_trace_of_its_maker() -> None:
    drawing = Histogram(Axis("tokens"), Axis("conversations"), (64, 128), (3, 5))
    svg, png = draw.draw(drawing, 'lengths <of> "all"')
    assert b"<title>lengths &lt;of&gt; &quot;all&quot;</title>" in svg
    assert b"matplotlib.org" not in svg.lower()
    assert not re.search(rb"20\d\d-\d\d-\d\d", svg)
    assert png.startswith(b"\x89PNG")
    assert b"#0d1117" in draw.darken(svg)
    inlined = draw.inline(svg, "here")
    assert "var(--ink)" in inlined
    assert all(found.startswith("here-") for found in re.findall(r'\bid="([^"]+)"', inlined))
