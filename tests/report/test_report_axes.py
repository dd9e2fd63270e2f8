"""What the trade-off can be drawn over, and the small chart of a row that is opened."""

from __future__ import annotations

import re
from pathlib import Path

from harness.report.axes import axes_choice
from harness.report.blocks import AxesChoice, Chart, Details
from harness.report.figures.spark import MOST_POINTS, SparkLine, spark
from tests.report.records import Made, build_from, write_runs


def choice(root: Path) -> AxesChoice:
    evidence = build_from(root).evidence
    found = axes_choice(evidence, evidence.ranked[0])
    assert found is not None
    return found


def test_scores_and_costs_can_be_chosen(seven_runs: Path) -> None:
    found = choice(seven_runs)
    titles = [quantity.title for quantity in found.quantities]
    assert titles[found.y] == "perplexity"
    assert titles[found.x] == "peak memory (resident memory of the process), GiB"
    assert {"oasst_choice acc", "weights, MiB", "predicted peak memory, GiB"} <= set(titles)
    assert "training energy, J" not in titles, "measured by none"
    assert "training time, s" not in titles, "the same for all"
    labels = [row.label for row in found.rows]
    assert "full_finetune" not in labels, "it failed"
    weights = found.quantities[titles.index("weights, MiB")]
    place = labels.index("qlora_nf4")
    assert weights.said[place] == f"{weights.values[place]:.3g} MiB"
    assert [row.label for row in found.rows if row.recommended] == [labels[0]]


def test_a_score_brings_its_interval(seven_runs: Path) -> None:
    found = choice(seven_runs)
    perplexity = found.quantities[found.y]
    place = [row.label for row in found.rows].index("qlora_nf4")
    low, value, high = perplexity.low[place], perplexity.values[place], perplexity.high[place]
    assert low is not None
    assert value is not None
    assert high is not None
    assert low < value < high


def test_one_row_has_nothing_to_choose(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("qlora_nf4")])
    evidence = build_from(tmp_path).evidence
    assert axes_choice(evidence, None) is None


def test_an_opened_row_has_a_curve_for_each_seed_and_the_reference(seven_runs: Path) -> None:
    report = build_from(seven_runs)
    (section,) = (section for section in report.sections if section.key == "variants")
    charts = {
        fold.summary: [block for block in fold.blocks if isinstance(block, Chart)]
        for fold in section.blocks
        if isinstance(fold, Details)
    }
    assert charts["base"] == [], "nothing was trained"
    (chart,) = charts["qlora_nf4"]
    assert chart.svg.count("<polyline") == 4
    assert chart.caption.endswith("grey: lora_bf16.")
    (own,) = charts["lora_bf16"]
    assert own.svg.count("<polyline") == 3


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    points = tuple((float(step), 3 - step / 4000) for step in range(4001))
    drawn = spark([SparkLine(points, "#123456", "<one>")], "a & b")
    (line,) = re.findall(r'points="([^"]+)"', drawn)
    assert len(line.split()) <= MOST_POINTS + 1
    assert line.split()[-1] == "412.0,126.0", "right and low"
    assert "&lt;one&gt;" in drawn
    assert "a &amp; b" in drawn
