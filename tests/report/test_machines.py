"""Rows that ran on several devices: what they cost is never set against each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.report.answer import answer_lines
from harness.report.axes import axes_choice
from harness.report.blocks import Facts
from harness.report.costs import memory_section, time_section
from harness.report.decision import price, what_would_change
from harness.report.evidence import Evidence
from harness.report.frontier import costs_of
from harness.report.machines import apart_said, of_most
from harness.report.ranking import ranking
from harness.report.recommend import Recommendation, recommend
from harness.report.summary import caveats
from harness.report.ties import ALWAYS_ALIKE
from harness.report.tradeoff import tradeoff_section
from harness.spec.device import Device
from tests.report.records import CPU, GPU, Made, build_from, write_runs
from tests.report.tables import said, texts

LONE = "lora_dora"  # the best of all, alone on the other device


def evidence_of(root: Path, **wishes: object) -> Evidence:
    """Three variants on a GPU, and one as good as the best of them on a processor."""
    quality = {"lora_bf16": -0.1, "qlora_nf4": -0.199, "lora_bf16_r64": -0.15, LONE: -0.2}
    memory = {"qlora_nf4": 0.6, LONE: 0.3}
    runs = [
        Made(
            name,
            seed=seed,
            log_ratio=ratio,
            memory=memory.get(name, 1.0),
            seconds=80.0 + 10 * (name == "lora_bf16_r64"),
            speed=8.0 if name == LONE else 30_000.0,
            device=CPU if name == LONE else GPU,
        )
        for name, ratio in quality.items()
        for seed in range(3)
    ]
    write_runs(root, runs)
    return build_from(root, **wishes).evidence


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return evidence_of(tmp_path_factory.mktemp("mixed"))


def test_the_ranking_names_the_device_of_every_row(mixed: Evidence) -> None:
    table = ranking(mixed)
    assert table.columns[-1].title == "device"
    devices = {row[0].text: row[-1].text for row in table.rows}
    assert devices == dict.fromkeys(mixed.by_label, "Example GPU") | {LONE: "Example CPU"}
    assert "compared only between rows of one device" in table.caption


def test_rows_of_one_device_have_no_such_column(seven_runs: Path) -> None:
    evidence = build_from(seven_runs).evidence
    table = ranking(evidence)
    assert "device" not in [column.title for column in table.columns]
    assert "devices" not in table.caption
    assert evidence.costed == set(evidence.by_label)


def test_it_is_told_beside_memory_time_and_among_the_caveats(mixed: Evidence) -> None:
    words = "These rows ran on 2 devices (Example CPU, Example GPU)"
    assert any(words in text for text in caveats(mixed))
    for section in (memory_section(mixed), time_section(mixed)):
        assert words in said(section)


def test_quality_is_drawn_against_the_costs_of_one_device(mixed: Evidence) -> None:
    section = tradeoff_section(mixed)
    assert section is not None
    figures = [block for block in section.blocks if hasattr(block, "drawing")]
    assert figures
    assert all(LONE not in repr(figure.drawing) for figure in figures)
    assert f"Not drawn: {LONE}." in said(section)


def test_chosen_axes_have_no_costs_of_another_device(mixed: Evidence) -> None:
    choice = axes_choice(mixed, None)
    assert choice is not None
    place = [row.label for row in choice.rows].index(LONE)
    known = {one.title: one.values[place] for one in choice.quantities}
    assert known["perplexity"] is not None
    assert known["training time, s"] is None
    assert known["trainable parameters"] is not None


def test_no_price_is_set_beside_that_of_another_device(mixed: Evidence) -> None:
    row = mixed.by_label[LONE]
    (facts,) = price(mixed, row)
    assert isinstance(facts, Facts)
    notes = {fact.title: fact.note for fact in facts.facts}
    assert "against the runner-up" in notes["perplexity"]
    assert notes["training speed"] == ""
    assert not any("memory limit" in text for text in what_would_change(mixed, recommend(mixed)))
    assert not any("lora_bf16:" in text for text in answer_lines(mixed) if "Price" in text)


def test_only_costs_of_the_best_row_s_device_decide(tmp_path: Path) -> None:
    """The row on the GPU needs less memory by numbers that do not compare."""
    evidence = evidence_of(tmp_path, margin=0.05)
    found = recommend(evidence)
    assert found is not None
    assert found.row is not None
    assert found.row.label == LONE
    assert any("elsewhere ran qlora_nf4" in text for text in found.sureness)


def best_two_on_a_processor(root: Path, **wishes: object) -> Evidence:
    """Four variants on a GPU; the best, and one as good in 0.3 of its memory, on a processor."""
    others = ("lora_bf16_r64", "qlora_nf4_dq", "qlora_fp4", LONE)
    runs = [
        Made(name, seed=seed, log_ratio=-0.1, memory=0.9, device=GPU)
        for name in others
        for seed in range(3)
    ]
    for name, ratio, memory in (("lora_bf16", -0.2, 1.0), ("qlora_nf4", -0.199, 0.3)):
        runs += [Made(name, seed=seed, log_ratio=ratio, memory=memory) for seed in range(3)]
    write_runs(root, runs)
    return build_from(root, **wishes).evidence


def recommended(evidence: Evidence) -> Recommendation:
    found = recommend(evidence)
    assert found is not None
    assert found.row is not None
    return found


@pytest.mark.parametrize("wish", ["margin", "max_loss"])
def test_rows_of_a_device_are_weighed_by_its_own_measure(tmp_path: Path, wish: str) -> None:
    """As on that device alone, although most rows ran on another one."""
    evidence = best_two_on_a_processor(tmp_path, **{wish: 0.05})
    assert evidence.memory_kind == "peak_device_bytes"
    found = recommended(evidence)
    assert found.row is evidence.by_label["qlora_nf4"]
    assert "needs the least memory, 601 MiB" in " ".join(found.reasons)


def test_single_trainings_are_weighed_by_their_own_measure_too(tmp_path: Path) -> None:
    others = ("lora_bf16_r64", "qlora_nf4_dq", LONE)
    runs = [Made(name, log_ratio=-0.18, device=GPU) for name in others]
    runs += [Made("lora_bf16", log_ratio=-0.2), Made("qlora_nf4", log_ratio=-0.199, memory=0.3)]
    write_runs(tmp_path, runs)
    found = recommended(build_from(tmp_path, margin=0.05).evidence)
    assert found.row is not None
    assert found.row.label == "qlora_nf4"
    assert "it needs the least memory, 601 MiB, of those on Example CPU." in found.reasons[0]


def test_a_memory_limit_knows_the_measure_of_every_device(tmp_path: Path) -> None:
    evidence = best_two_on_a_processor(tmp_path, budget_memory_bytes=1 << 30)
    found = recommended(evidence)
    assert found.reasons[0] == (
        "1 of 6 scored rows fit into 1.00 GiB of a GPU's memory, or of resident memory where they "
        "ran on a processor."
    )
    assert found.row is evidence.by_label["qlora_nf4"]
    assert "needs 601 MiB" in " ".join(found.reasons)


def test_the_price_is_told_by_the_measure_of_the_row_s_device(tmp_path: Path) -> None:
    evidence = best_two_on_a_processor(tmp_path, margin=0.05)
    row = evidence.by_label["qlora_nf4"]
    (facts,) = price(evidence, row)
    assert isinstance(facts, Facts)
    told = {fact.title: f"{fact.value}; {fact.note}" for fact in facts.facts}
    assert told["peak memory"].startswith("601 MiB; −70 % against the runner-up's 1.96 GiB")
    assert any("peak memory 601 MiB" in text for text in answer_lines(evidence))
    best = replace(recommended(evidence), row=evidence.by_label["lora_bf16"])
    assert any("qlora_nf4 is the best" in text for text in what_would_change(evidence, best))


def test_the_ranking_shows_every_peak_by_the_measure_of_its_device(tmp_path: Path) -> None:
    table = ranking(best_two_on_a_processor(tmp_path))
    peaks = {row["variant"]: row["peak memory"] for row in texts(table)}
    assert peaks["qlora_nf4"] == "601 MiB (601–601 MiB)"
    assert "–" not in peaks.values()
    assert (
        "Peak memory: whole device, NVML (Example GPU); resident memory of the process "
        "(Example CPU), the highest of"
    ) in table.caption


def test_runs_of_another_device_do_not_say_what_a_tie_is(tmp_path: Path) -> None:
    """Times of the processor differ by more than those of the GPU's variants from each other."""
    runs = [
        Made(name, seed=seed, seconds=seconds + seed / 10, memory=memory, device=GPU)
        for name, seconds, memory in (
            ("lora_bf16", 80.0, 1.0),
            ("lora_bf16_r64", 90.0, 1.2),
            ("qlora_nf4", 100.0, 0.5),
        )
        for seed in range(3)
    ]
    runs += [Made(LONE, seed=seed, seconds=40.0 * 3**seed) for seed in range(3)]
    write_runs(tmp_path, runs)
    evidence = build_from(tmp_path).evidence
    memory, time, _ = costs_of(evidence)
    assert memory.order.alike == pytest.approx(ALWAYS_ALIKE)
    assert time.order.alike == pytest.approx(ALWAYS_ALIKE)
    (facts,) = price(evidence, evidence.by_label["qlora_nf4"])
    assert "a tie" not in str(facts)


def test_at_a_tie_the_reference_says_whose_costs_are_compared(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("base"), Made("lora_bf16", device=GPU)])
    evidence = build_from(tmp_path).evidence
    assert evidence.costed == {"lora_bf16"}
    assert [row.label for row in of_most(evidence.rows, "base")] == ["base"]


def test_a_variant_on_two_devices_is_named_by_them(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("qlora_nf4"), Made("qlora_nf4", device=GPU)])
    labels = {row.label.partition(",")[0] for row in build_from(tmp_path).evidence.rows}
    assert labels == {
        "qlora_nf4 [device.name=Example CPU",
        "qlora_nf4 [device.name=Example GPU",
    }


def cores(threads: int, **changes: object) -> Device:
    """A processor of one name with so many threads."""
    return CPU.model_copy(update={"threads": threads, **changes})


def test_each_device_is_named_apart_from_all_others(tmp_path: Path) -> None:
    """Also where the first other device has another name."""
    devices = {"lora_bf16": GPU, "qlora_nf4": cores(2), "qlora_fp4": cores(8)}
    write_runs(tmp_path, [Made(name, device=device) for name, device in devices.items()])
    evidence = build_from(tmp_path).evidence
    assert (
        "These rows ran on 3 devices (Example CPU with 2 threads, Example CPU with 8 threads, "
        "Example GPU)"
    ) in apart_said(evidence.rows)
    named = {row["variant"]: row["device"] for row in texts(ranking(evidence))}
    assert named == {
        "lora_bf16": "Example GPU",
        "qlora_nf4": "Example CPU with 2 threads",
        "qlora_fp4": "Example CPU with 8 threads",
    }


def test_a_device_that_two_others_differ_from_in_two_things_is_named_by_both(
    tmp_path: Path,
) -> None:
    """Memory tells apart only what costs alike, so machines that differ in it have one name."""
    devices = {
        "lora_bf16": cores(2),
        "qlora_nf4": cores(8),
        "qlora_fp4": cores(2, bfloat16=True, memory_bytes=32 << 30),
        LONE: cores(2, memory_bytes=25 << 30),
    }
    write_runs(tmp_path, [Made(name, device=device) for name, device in devices.items()])
    assert (
        "on 3 devices (Example CPU with 2 threads and fast bfloat16, Example CPU with 2 threads "
        in (apart_said(build_from(tmp_path).evidence.rows))
    )


def test_the_choice_names_the_device_as_the_ranking_does(tmp_path: Path) -> None:
    """Also where no row that came close ran on the one that shares its name."""
    runs = [
        Made(name, seed=seed, log_ratio=ratio, device=device)
        for name, ratio, device in (
            ("lora_bf16", -0.2, cores(2)),
            ("qlora_nf4", -0.199, GPU),
            ("qlora_fp4", 0.5, cores(8)),
        )
        for seed in range(3)
    ]
    write_runs(tmp_path, runs)
    found = recommended(build_from(tmp_path, max_loss=0.05).evidence)
    assert "Costs are weighed on Example CPU with 2 threads alone" in " ".join(found.sureness)


def test_a_variant_on_two_processors_of_one_name_and_a_gpu_is_labelled_by_threads(
    tmp_path: Path,
) -> None:
    devices = (GPU, cores(2), cores(8))
    write_runs(tmp_path, [Made("qlora_nf4", device=device) for device in devices])
    labels = {row.label for row in build_from(tmp_path).evidence.rows}
    assert not any("#" in label for label in labels), labels
    assert {", ".join(label[:-1].split(", ")[:2]) for label in labels} >= {
        "qlora_nf4 [device.name=Example CPU, device.threads=2",
        "qlora_nf4 [device.name=Example CPU, device.threads=8",
    }
    (on_gpu,) = (label for label in labels if "device.name=Example GPU" in label)
    assert "device.threads" not in on_gpu, "it has none"
