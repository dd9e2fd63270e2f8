"""The figures beside the findings: what they place where, and what they leave out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from harness.records.record import Score
from harness.records.store import StoredRun
from harness.report.blocks import Figure
from harness.report.claims.figures import findings_figures
from harness.report.claims.ground import Ground, make_grounds
from harness.report.figures.draw import draw, draw_narrow
from harness.report.figures.forest import Forest
from harness.report.figures.multiples import Multiples
from harness.report.figures.rates import SHOWN_ABOVE_BEST
from harness.report.figures.scatter import Scatter
from harness.report.sides import read_runs
from tests.report.records import seven, write_runs
from tests.studies.stub import Bench, World


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[StoredRun]:
    root = tmp_path_factory.mktemp("runs")
    write_runs(root, seven())
    return read_runs(root)[0]


def by_name(ground: Ground) -> dict[str, Figure]:
    return {figure.name: figure for figure in findings_figures(ground)}


def with_many(runs: list[StoredRun]) -> list[StoredRun]:
    """The runs, and those of LoRA again under ten further names."""
    lora = [run for run in runs if run.record.plan.variant == "lora_bf16"]
    return [*runs, *(named(run, f"lora_again{number}") for number in range(10) for run in lora)]


def named(run: StoredRun, variant: str) -> StoredRun:
    plan = run.record.plan.model_copy(update={"variant": variant, "request": None})
    return replace(run, record=run.record.model_copy(update={"plan": plan}))


def with_unrelated_text(run: StoredRun, bits: float) -> StoredRun:
    """The run with a score on WikiText-2."""
    score = Score(
        task="wikitext2",
        metric="bits_per_byte",
        stage="after",
        value=bits,
        standard_error=None,
        n=10,
        unit="per byte",
        direction="lower",
        headline=False,
    )
    record = run.record.model_copy(update={"scores": (*run.record.scores, score)})
    return replace(run, record=record)


def test_quality_stands_against_the_bytes_of_the_weights(runs: list[StoredRun]) -> None:
    (ground,) = make_grounds(runs)
    drawing = by_name(ground)["findings-bytes"].drawing
    assert isinstance(drawing, Scatter)
    points = {point.label: point for point in drawing.points}
    assert points.keys() == ground.arms.keys()
    for name, point in points.items():
        row = ground.arms[name].row
        assert row is not None
        assert row.weight_bytes is not None
        assert point.x == pytest.approx(row.weight_bytes / 2**20)
    assert points["lora_bf16"].low is None, "the reference has no difference from itself"
    nf4 = points["qlora_nf4"]
    assert nf4.low is not None
    assert nf4.high is not None
    assert nf4.low < nf4.y < nf4.high
    assert points["lora_bf16"].y < nf4.y


def test_many_variants_stand_in_rows_best_first(runs: list[StoredRun]) -> None:
    """Each with its difference from LoRA, and bold where none above has as few bytes."""
    (ground,) = make_grounds(with_many(runs))
    figure = by_name(ground)["findings-bytes"]
    drawing = figure.drawing
    assert isinstance(drawing, Forest)
    rows = {row.label: row for row in drawing.rows}
    assert rows.keys() == ground.arms.keys()
    reference, nf4, worst = (
        rows["lora_bf16"].estimates,
        rows["qlora_nf4"].estimates,
        rows["base_nf4"],
    )
    assert reference[0] is not None
    assert reference[0].value == 0
    assert reference[0].text.startswith("reference, ")
    assert nf4[0] is not None
    assert nf4[0].low is not None
    assert nf4[0].low < nf4[0].value
    assert nf4[0].text.startswith(f"+{nf4[0].value:.2f} [")
    assert list(rows).index("lora_bf16") < list(rows).index("qlora_nf4")
    sizes = [row.estimates[1] for row in drawing.rows]
    for place, size in enumerate(sizes):
        above = [other.value for other in sizes[:place] if other]
        assert size is not None
        assert size.strong == all(size.value < other for other in above), place
    assert worst.label in figure.alt
    assert "logarithmic outside" in figure.caption
    assert {name for _, name in drawing.key} >= {"LoRA family", "LoRA family, 4-bit base"}
    assert "lora_again9" in draw(drawing, figure.alt)[0].decode()


def test_many_variants_stand_in_rows_by_what_they_learned(runs: list[StoredRun]) -> None:
    """Both changes are against the own untrained base; who has none is named as left out."""
    far = {"qlora_nf4": 3.0, "base": 1.0, "base_nf4": 1.2}
    scored = [
        with_unrelated_text(run, far.get(run.record.plan.variant, 1.02))
        for run in with_many(runs)
        if run.record.plan.variant != "base_nf4_dq"
    ]
    (ground,) = make_grounds(scored)
    figure = by_name(ground)["findings-forgetting"]
    drawing = figure.drawing
    assert isinstance(drawing, Forest)
    learned = [row.estimates[0].value for row in drawing.rows if row.estimates[0]]
    assert learned == sorted(learned)
    rows = {row.label: row for row in drawing.rows}
    assert rows.keys() == {"lora_bf16", "qlora_nf4", *(f"lora_again{n}" for n in range(10))}
    forgot = rows["lora_bf16"].estimates[1], rows["qlora_nf4"].estimates[1]
    assert [found.value for found in forgot if found] == pytest.approx([2.0, 150.0])
    cut = drawing.panels[1].highest
    assert cut is not None
    assert 2 < cut < 150, "one far value does not flatten the others"
    assert f"cut off at {cut:g}" in drawing.panels[1].title
    assert drawing.panels[0].highest is None
    assert "not shown: qlora_fp4" in figure.caption
    assert "qlora_nf4 +150.00 %" in figure.alt


def test_without_a_search_there_are_no_curves_over_the_rate(runs: list[StoredRun]) -> None:
    (ground,) = make_grounds(runs)
    assert "findings-rates" not in by_name(ground)


def test_without_unrelated_text_nothing_is_said_of_forgetting(runs: list[StoredRun]) -> None:
    (ground,) = make_grounds(runs)
    assert "findings-forgetting" not in by_name(ground)


def test_forgetting_is_counted_from_each_ones_own_base(runs: list[StoredRun]) -> None:
    bits = {"base": 1.0, "base_nf4": 1.2, "lora_bf16": 1.05, "qlora_nf4": 1.08}
    scored = [
        with_unrelated_text(run, bits[run.record.plan.variant])
        for run in runs
        if run.record.plan.variant in bits
    ]
    (ground,) = make_grounds(scored)
    drawing = by_name(ground)["findings-forgetting"].drawing
    assert isinstance(drawing, Scatter)
    points = {point.label: point for point in drawing.points}
    assert set(points) == {"lora_bf16", "qlora_nf4"}, "bases stand for zero"
    assert points["lora_bf16"].y == pytest.approx(5.0)
    assert points["qlora_nf4"].y == pytest.approx(100 * (1.08 / 1.2 - 1))
    assert points["lora_bf16"].x > 0, "it learned the replies"
    assert "loss on unrelated text +5.00 %" in points["lora_bf16"].said


def test_forgetting_is_counted_from_what_a_runs_own_weights_scored_before(
    runs: list[StoredRun],
) -> None:
    """Products in eight bits change what the same weights score before training."""
    lora = [run for run in runs if run.record.plan.variant == "lora_bf16"]
    base = [run for run in runs if run.record.plan.variant == "base"]
    rounded = [with_before(named(run, "lora_fp8"), 1.1) for run in lora]
    scored = [with_unrelated_text(run, 1.05) for run in (*lora, *rounded)]
    scored += [with_unrelated_text(run, 1.0) for run in base]
    (ground,) = make_grounds(scored)
    drawing = by_name(ground)["findings-forgetting"].drawing
    assert isinstance(drawing, Scatter)
    points = {point.label: point for point in drawing.points}
    assert points["lora_bf16"].y == pytest.approx(5.0)
    assert points["lora_fp8"].y == pytest.approx(100 * (1.05 / 1.1 - 1))


def with_before(run: StoredRun, bits: float) -> StoredRun:
    """The run with scores before training: ``bits`` on WikiText-2, and a perplexity."""
    perplexity = next(one for one in run.record.scores if one.metric == "perplexity")
    one = run.record.scores[0].model_copy(
        update={"task": "wikitext2", "metric": "bits_per_byte", "value": bits}
    )
    before = [
        score.model_copy(update={"stage": "before", "items": None, "items_sha256": None})
        for score in (perplexity, one)
    ]
    record = run.record.model_copy(update={"scores": (*run.record.scores, *before)})
    return replace(run, record=record)


def test_runs_without_lora_have_no_figures(runs: list[StoredRun]) -> None:
    bases = [run for run in runs if run.record.plan.variant.startswith("base")]
    (ground,) = make_grounds(bases)
    assert by_name(ground) == {}


def test_each_search_has_a_panel_and_full_fine_tuning_stands_in_all(tmp_path: Path) -> None:
    world = World(worse={"full_finetune": 0.05}, rates={"full_finetune": 5e-5})
    bench = Bench.of(tmp_path, world, variants=["lora_bf16", "full_finetune"])
    agenda = bench.finish()
    (ground,) = make_grounds(read_runs(tmp_path / "runs")[0])
    figure = by_name(ground)["findings-rates"]
    drawing = figure.drawing
    assert isinstance(drawing, Multiples)
    assert drawing.reference == "full_finetune"
    for line in drawing.lines:
        trials = sorted(agenda.searches[line.label].trials, key=lambda one: one.rate)
        assert line.x == pytest.approx([math.log10(trial.rate) for trial in trials])
        assert line.y == pytest.approx([math.exp(trial.loss) for trial in trials])
    highest = max(min(line.y) for line in drawing.lines) * SHOWN_ABOVE_BEST
    assert drawing.highest == pytest.approx(highest)
    assert "grey in every panel" in figure.caption
    rates = {name: ground.arms[name].best_rate for name in ("lora_bf16", "full_finetune")}
    assert rates["lora_bf16"]
    assert rates["full_finetune"]
    times = f"× {rates['lora_bf16'] / rates['full_finetune']:.2g}"
    assert [line.label for line in drawing.lines] == ["full_finetune", "lora_bf16"]
    assert drawing.notes == ("", times)
    assert f"({times})" in figure.alt
    vector, raster = draw(drawing, figure.alt)
    assert vector.count(b"<title>") >= 1 + len(drawing.lines)
    assert raster.startswith(b"\x89PNG")
    assert draw_narrow(drawing, figure.alt) != vector


def test_a_diverged_rate_is_left_out_of_the_curve(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, World(), variants=["lora_bf16", "full_finetune"])
    bench.finish()
    (ground,) = make_grounds(read_runs(tmp_path / "runs")[0])
    arm = ground.arms["lora_bf16"]
    diverged = replace(arm, rates={**arm.rates, 0.5: math.inf})
    changed = replace(ground, arms={**ground.arms, "lora_bf16": diverged})
    drawing = by_name(changed)["findings-rates"].drawing
    assert isinstance(drawing, Multiples)
    (line,) = (line for line in drawing.lines if line.label == "lora_bf16")
    assert len(line.x) == len(arm.rates)
    assert max(line.x) < math.log10(0.5)
