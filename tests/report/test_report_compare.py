"""Paired comparison of two sides, the gate on it, and its JSON and JUnit forms."""

from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from harness.errors import UnknownName, UserError
from harness.report.compare import Comparison, compare
from harness.report.console import comparison_table, outcome_lines, ranking_table
from harness.report.gate import comparison_json, comparison_junit, judge, parse_gate, sentence
from harness.report.sides import find_side
from tests.report.records import GPU, Made, build_from, write_run, write_runs


def sides(root: Path, before: str, after: str) -> Comparison:
    found = (find_side(name, root, "quick") for name in (before, after))
    return compare(*found)


def shown(comparison: Comparison) -> str:
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(comparison_table(comparison))
    return console.export_text()


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Records of the same variants under two versions of a library; one got 4 % worse."""
    old, new = (tmp_path_factory.mktemp(name) for name in ("old", "new"))
    for seed in range(3):
        write_run(old, Made("lora_bf16", seed=seed, seed_noise=0.0))
        write_run(new, Made("lora_bf16", seed=seed, seed_noise=0.0))
        write_run(old, Made("qlora_nf4", seed=seed, seed_noise=0.001))
        write_run(new, Made("qlora_nf4", seed=seed, seed_noise=0.002, log_ratio=0.04, memory=1.1))
    return old, new


def test_two_variants(seven_runs: Path) -> None:
    found = sides(seven_runs, "lora_bf16", "qlora_nf4")
    (pair,) = found.pairs
    changes = {change.name: change for change in pair.changes}
    assert changes["perplexity"].verdict == "worse"
    assert changes["perplexity"].estimate == pytest.approx(0.105, abs=0.015)
    assert changes["memory"].estimate == pytest.approx(-0.4, abs=0.001)
    assert changes["weights"].after < changes["weights"].before


def test_a_side_against_itself_is_equal(seven_runs: Path) -> None:
    pairs = sides(seven_runs, str(seven_runs), str(seven_runs)).pairs
    for pair in [pair for pair in pairs if pair.failed is None]:
        assert all(change.estimate == 0 for change in pair.changes)
        losses = [change for change in pair.changes if change.relative and change.verdict]
        shares = [change for change in pair.changes if change.share]
        # Equal losses on every item are equal models; equal answers to a few items are not.
        assert {change.verdict for change in losses} == {"equivalent"}
        assert {change.verdict for change in shares} == {"undecided"}


def test_two_folders_are_matched_by_variant(versions: tuple[Path, Path]) -> None:
    old, new = versions
    found = sides(old, str(old), str(new))
    assert [pair.label for pair in found.pairs] == ["lora_bf16", "qlora_nf4"]
    assert found.unmatched == ()


def test_two_run_folders(versions: tuple[Path, Path]) -> None:
    old, new = (next(root.glob("quick/qlora_nf4/0-*")) for root in versions)
    (pair,) = sides(versions[0], str(old), str(new)).pairs
    assert {change.seeds for change in pair.changes} == {1}


@pytest.mark.parametrize(
    ("gate", "status"),
    [
        ("perplexity > +1%", "failed"),
        ("perplexity > +10%", "passed"),
        ("perplexity>0.01", "failed"),
        ("memory > +5%", "failed"),
        ("memory > +15%", "passed"),
        ("throughput < -5%", "passed"),
        ("acc < -2pp", "passed"),
        ("oasst_choice acc < -0.5", "passed"),
    ],
)
def test_gates(versions: tuple[Path, Path], gate: str, status: str) -> None:
    comparison = sides(versions[0], *map(str, versions))
    outcomes = {o.pair: o for o in judge(comparison, [parse_gate(gate)])}
    assert outcomes["qlora_nf4"].status == status
    assert outcomes["lora_bf16"].status == "passed"


def test_a_difference_inside_its_interval_passes(tmp_path: Path) -> None:
    """A noisy change of about one per cent is not past half a per cent beyond its interval."""
    old, new = tmp_path / "old", tmp_path / "new"
    write_runs(old, [Made("qlora_nf4", seed=s, seed_noise=0.03) for s in range(3)])
    write_runs(new, [Made("qlora_nf4", seed=s, seed_noise=0.04) for s in range(3)])
    comparison = sides(old, str(old), str(new))
    (outcome,) = judge(comparison, [parse_gate("perplexity > +0.001%")])
    assert outcome.status == "passed"


def test_a_failed_run_does_not_open_the_gate(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16"), Made("full_finetune", status="oom")])
    comparison = sides(tmp_path, "lora_bf16", "full_finetune")
    (outcome,) = judge(comparison, [parse_gate("perplexity > +1%")])
    assert outcome.status == "unknown"
    assert "B has no finished run" in outcome.reason


def test_missing_items_do_not_open_the_gate(tmp_path: Path) -> None:
    write_run(tmp_path, Made("lora_bf16"))
    for path in (write_run(tmp_path, Made("qlora_nf4")) / "items").iterdir():
        path.unlink()
    comparison = sides(tmp_path, "lora_bf16", "qlora_nf4")
    (outcome,) = judge(comparison, [parse_gate("perplexity > +1%")])
    assert (outcome.status, outcome.reason) == ("unknown", "no per-item values")


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("throughput < -5%", "did not fall by more than 5 %"),
        ("acc < -2pp", "did not fall by more than 2 points"),
        ("memory > -50%", "FAILED: memory of qlora_nf4 is past memory > -50%"),
        ("memory > 0", "FAILED: memory of qlora_nf4 rose at all"),
    ],
)
def test_a_gate_is_told_in_words(versions: tuple[Path, Path], gate: str, said: str) -> None:
    comparison = sides(versions[0], *map(str, versions))
    results = judge(comparison, [parse_gate(gate)])
    assert any(said in sentence(result) for result in results)


def test_one_training_each_is_judged_over_its_items_and_says_so(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16"), Made("qlora_nf4", log_ratio=0.04)])
    comparison = sides(tmp_path, "lora_bf16", "qlora_nf4")
    (change,) = [c for c in comparison.pairs[0].changes if c.name == "perplexity"]
    assert change.verdict == "differs"
    assert (change.low, change.high) == (None, None)
    (result,) = judge(comparison, [parse_gate("perplexity > +1%")])
    assert result.status == "failed"
    assert "over items, one training each" in result.reason


@pytest.mark.parametrize(
    "text", ["perplexity", "> 1%", "perplexity = 1", "perplexity > one", "perplexity >= 1", ""]
)
def test_gates_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="is not NAME < BOUND"):
        parse_gate(text)


def test_unknown_names(seven_runs: Path) -> None:
    comparison = sides(seven_runs, "lora_bf16", "qlora_nf4")
    with pytest.raises(UnknownName, match="unknown quantity 'perplexty'"):
        judge(comparison, [parse_gate("perplexty > 1%")])
    with pytest.raises(UnknownName, match="unknown run or variant 'qlora_nf5'"):
        find_side("qlora_nf5", seven_runs, "quick")


def test_a_variant_in_several_settings_is_matched_with_the_one_alike(tmp_path: Path) -> None:
    """How a row is labelled depends on its neighbours; what was run does not."""
    old, new = tmp_path / "old", tmp_path / "new"
    longer = ("score.max_new_tokens=96",)
    write_runs(old, [Made("lora_bf16"), Made("base")])
    write_runs(new, [Made("lora_bf16"), Made("lora_bf16", longer), Made("qlora_nf4")])
    found = sides(tmp_path, str(old), str(new))
    (only,) = found.pairs
    assert only.label.startswith("lora_bf16 [score.max_new_tokens=48, ")
    assert only.label.endswith(" against lora_bf16")
    assert len(found.unmatched) == 3


def test_a_variant_in_other_settings_is_said_to_be_on_both_sides(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write_runs(old, [Made("lora_bf16", ("budget.steps=3",)), Made("base")])
    write_runs(new, [Made("lora_bf16"), Made("lora_bf16", ("budget.steps=9",))])
    with pytest.raises(UserError, match="in the same setting on both sides"):
        sides(tmp_path, str(old), str(new))


def test_nothing_in_common(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write_runs(old, [Made("lora_bf16"), Made("base")])
    write_runs(new, [Made("qlora_nf4"), Made("base_nf4")])
    with pytest.raises(UserError, match="no variant is on both sides"):
        sides(old, str(old), str(new))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no record in this folder"):
        find_side(str(tmp_path / "empty"), old)


def test_json_and_junit(versions: tuple[Path, Path]) -> None:
    comparison = sides(versions[0], *map(str, versions))
    outcomes = judge(comparison, [parse_gate("perplexity > +1%"), parse_gate("memory > +50%")])
    document = json.loads(comparison_json(comparison, outcomes))
    assert [pair["label"] for pair in document["pairs"]] == ["lora_bf16", "qlora_nf4"]
    suite = ET.fromstring(comparison_junit(comparison, outcomes)).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "0")
    failure = suite.find("testcase[@classname='qlora_nf4']/failure")
    assert failure is not None
    assert "perplexity +" in failure.get("message", "")


def test_tables_for_the_terminal(versions: tuple[Path, Path], seven_runs: Path) -> None:
    comparison = sides(versions[0], *map(str, versions))
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(comparison_table(comparison))
    console.print(ranking_table(build_from(seven_runs)))
    for line in outcome_lines(judge(comparison, [parse_gate("perplexity > +1%")])):
        console.print(line)
    text = console.export_text()
    assert "FAILED: perplexity of qlora_nf4 rose by more than 1 %" in text
    assert "OK: perplexity of lora_bf16 did not rise by more than 1 %" in text
    assert "out of memory in train" in text
    assert "lora_bf16" in text


@pytest.mark.parametrize("setting", ["score.held_out_tokens=64", "score.stride=100"])
def test_items_that_ask_something_else_are_not_paired(tmp_path: Path, setting: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write_runs(old, [Made("lora_bf16")])
    write_runs(new, [Made("lora_bf16", settings=(setting,), log_ratio=0.5)])
    pair = sides(old, str(old), str(new)).pairs[0]
    assert not [change for change in pair.changes if change.name == "perplexity"]


def test_costs_are_compared_on_the_seeds_that_both_have(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write_runs(old, [Made("lora_bf16", seed=0), Made("lora_bf16", seed=1, memory=9.0)])
    write_runs(new, [Made("lora_bf16", seed=0)])
    pair = sides(old, str(old), str(new)).pairs[0]
    (memory,) = [change for change in pair.changes if change.name == "memory"]
    assert memory.before == memory.after
    assert memory.estimate == 0


def test_costs_say_that_they_are_no_medians(seven_runs: Path) -> None:
    """A report's medians of the same runs differ, and both are right."""
    caption = str(comparison_table(sides(seven_runs, "lora_bf16", "qlora_nf4")).caption)
    assert "memory, weights, throughput, time: geometric means over common seeds" in caption


def test_costs_of_two_devices_stand_side_by_side_and_are_not_compared(tmp_path: Path) -> None:
    cpu, gpu = tmp_path / "cpu", tmp_path / "gpu"
    write_runs(cpu, [Made("lora_bf16", seed=seed, speed=8.0) for seed in range(3)])
    write_runs(gpu, [Made("lora_bf16", seed=seed, device=GPU, speed=30_000.0) for seed in range(3)])
    comparison = sides(tmp_path, str(cpu), str(gpu))
    (pair,) = comparison.pairs
    compared = {change.name for change in pair.changes}
    assert "perplexity" in compared
    assert "weights" in compared
    assert not compared & {"memory", "throughput", "time", "energy"}
    unlike = {one.name: one for one in pair.unlike}
    assert set(unlike) == {"memory", "throughput", "time"}
    assert (unlike["throughput"].before, unlike["throughput"].after) == (8.0, 30_000.0)
    assert "A on Example CPU, B on Example GPU" in unlike["throughput"].reason
    text = shown(comparison)
    assert "30,000" in text
    said = "costs that are not compared were measured on two devices: A on Example CPU, B on"
    assert said in " ".join(text.split())


def test_a_gate_on_a_cost_of_two_devices_cannot_tell(tmp_path: Path) -> None:
    cpu, gpu = tmp_path / "cpu", tmp_path / "gpu"
    write_runs(cpu, [Made("lora_bf16")])
    write_runs(gpu, [Made("lora_bf16", device=GPU)])
    comparison = sides(tmp_path, str(cpu), str(gpu))
    (result,) = judge(comparison, [parse_gate("throughput < -5%")])
    assert result.status == "unknown"
    assert "measured on two devices" in result.reason


def test_a_little_more_memory_makes_no_other_device(tmp_path: Path) -> None:
    larger = GPU.model_copy(update={"memory_bytes": 81 * 2**30})
    old, new = tmp_path / "old", tmp_path / "new"
    write_runs(old, [Made("lora_bf16", device=GPU)])
    write_runs(new, [Made("lora_bf16", device=larger)])
    (pair,) = sides(tmp_path, str(old), str(new)).pairs
    assert not pair.unlike
    assert "throughput" in {change.name for change in pair.changes}
