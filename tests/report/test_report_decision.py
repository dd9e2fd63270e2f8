"""The decision: what the recommended row costs against the runner-up, and what would change it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.record import RunRecord
from harness.report.blocks import Details, Facts, Figure, Prose, Table
from harness.report.build import Report
from harness.report.decision import runner_up, shipped_bytes
from harness.report.figures.stacks import Stacks
from harness.spec.storage import read_json, write_json
from tests.report.records import Made, build_from, write_run, write_runs


def price(report: Report) -> Facts:
    return next(block for block in report.sections[0].blocks if isinstance(block, Facts))


def said(report: Report) -> str:
    return " ".join(b.text for b in report.sections[0].blocks if isinstance(b, Prose))


def test_each_price_stands_beside_the_runner_ups(seven_runs: Path) -> None:
    found = price(build_from(seven_runs))
    assert found.title == "Compared with the runner-up, qlora_nf4"
    facts = {fact.title: fact for fact in found.facts}
    costs = {"peak memory", "training speed", "training time", "bytes to ship"}
    assert set(facts) == {"perplexity", *costs}
    assert "paired, 95 % interval" in facts["perplexity"].note
    assert facts["peak memory"].note == "+67 % against the runner-up's 1.17 GiB"
    assert facts["training time"].note.endswith("the same")


def test_a_single_row_has_a_price_and_no_runner_up(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("qlora_nf4", seed=seed) for seed in range(3)])
    found = price(build_from(tmp_path))
    assert found.title == "Price"
    assert [fact.note for fact in found.facts] == [""] * 5


def test_compiling_once_hides_no_difference_in_speed(tmp_path: Path) -> None:
    """One run of the fast variant compiled for long; its steps took half as long."""
    fast = [
        Made("lora_bf16", seed=seed, seconds=took, once=took - 20, speed=1400, log_ratio=-0.2)
        for seed, took in enumerate((60, 42, 41))
    ]
    slow = [Made("qlora_nf4", seed=seed, seconds=52, once=12, speed=700) for seed in range(3)]
    write_runs(tmp_path, [*fast, *slow])
    facts = {fact.title: fact for fact in price(build_from(tmp_path)).facts}
    assert facts["training speed"].value == "1,400 tokens/s"
    assert facts["training speed"].note == "+100 % against the runner-up's 700 tokens/s"
    assert facts["training time"].note == (
        "−19 % against the runner-up's 52.0 s; a tie: repeated runs differ by as much; the steps "
        "alone 20.0 s against 40.0 s, the rest is compiling and set-up, once in a run"
    )


def test_tokens_by_seed_are_told_as_a_range(tmp_path: Path) -> None:
    seen = (7805, 6997, 7127)
    runs = [
        Made(name, seed=seed, tokens=tokens)
        for name in ("lora_bf16", "qlora_nf4")
        for seed, tokens in enumerate(seen)
    ]
    write_runs(tmp_path, runs)
    fold = build_from(tmp_path).sections[0].blocks[-1]
    assert isinstance(fold, Details)
    assert isinstance(fold.blocks[0], Prose)
    text = fold.blocks[0].text
    assert "which was 6,997 to 7,805 tokens by seed, the same for all variants." in text


def test_the_runner_up_keeps_to_the_memory_limit(seven_runs: Path) -> None:
    evidence = build_from(seven_runs, budget_memory_bytes=int(1.3 * 2**30)).evidence
    found = runner_up(evidence, evidence.by_label["qlora_nf4"])
    assert found is not None
    assert found.label == "qlora_nf4_dq", "lora_bf16 is better and does not fit"


def test_an_untrained_row_ships_nothing(seven_runs: Path) -> None:
    rows = build_from(seven_runs).evidence.by_label
    assert shipped_bytes(rows["base"]) is None
    assert shipped_bytes(rows["qlora_nf4"]) == 19_000_000


def test_a_smaller_memory_limit_would_change_it(seven_runs: Path) -> None:
    text = said(build_from(seven_runs))
    assert "A memory limit below 1.96 GiB (--budget-memory): qlora_nf4 is the best" in text


def test_settings_are_folded_below_the_decision(seven_runs: Path) -> None:
    fold = build_from(seven_runs).sections[0].blocks[-1]
    assert isinstance(fold, Details)
    assert fold.summary == "Settings of these runs"
    assert isinstance(fold.blocks[0], Prose)
    assert "steps, which was" in fold.blocks[0].text


@pytest.mark.parametrize("label", ["base_nf4", "qlora_nf4"])
def test_what_a_row_opens_to_tells_its_differences_and_files(seven_runs: Path, label: str) -> None:
    report = build_from(seven_runs)
    section = next(found for found in report.sections if found.key == "variants")
    fold = next(b for b in section.blocks if isinstance(b, Details) and b.summary == label)
    against, files = (block for block in fold.blocks if isinstance(block, Table))
    settings = {row[0].text for row in against.rows}
    assert "quantization.type" in settings
    assert not any(name.startswith(("training.", "adapter.")) for name in settings)
    assert files.rows[0][2].text.startswith(f"quick/{label}/0-")
    (record,) = [path for words, path in files.rows[0][3].files if words == "record.json (record)"]
    assert record.is_file()


def test_an_untrained_model_that_comes_next_is_named(tmp_path: Path) -> None:
    made = [Made("lora_bf16", seed=seed, log_ratio=-0.12) for seed in range(3)]
    made += [Made("qlora_nf4", seed=seed, log_ratio=0.1) for seed in range(3)]
    write_runs(tmp_path, [*made, Made("base")])
    assert "base, untrained (perplexity" in said(build_from(tmp_path))


def test_markers_say_method_and_bits(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made(n) for n in ("base", "lora_bf16", "lora_int8", "qlora_nf4")])
    marks = {row.label: row.mark for row in build_from(tmp_path).evidence.rows}
    assert marks["lora_bf16"].marker == marks["qlora_nf4"].marker != marks["base"].marker
    fills = [marks[label].fill for label in ("base", "lora_bf16", "lora_int8", "qlora_nf4")]
    assert fills == ["full", "full", "left", "none"]


def test_time_is_compared_over_phases_that_every_run_did(tmp_path: Path) -> None:
    """Base scores are taken once and reused: the one run that took them is not slower for it."""
    for label in ("lora_bf16", "qlora_nf4"):
        folder = write_run(tmp_path, Made(label))
        record = read_json(folder / "record.json", RunRecord)
        if label == "lora_bf16":
            phases = [
                cost.model_copy(update={"reused": True}) if cost.name == "score_base" else cost
                for cost in record.phases
            ]
            record = record.model_copy(update={"phases": tuple(phases)})
            write_json(folder / "record.json", record)
    section = next(s for s in build_from(tmp_path).sections if s.key == "time")
    figure = next(block for block in section.blocks if isinstance(block, Figure))
    assert isinstance(figure.drawing, Stacks)
    assert "score_base" not in figure.drawing.parts
    assert len({bar.total for bar in figure.drawing.bars}) == 1
    assert "without score_base" in figure.caption


def test_a_row_of_unknown_peak_fits_into_no_memory_limit(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("qlora_nf4"), Made("qlora_nf4_dq", log_ratio=0.05)])
    path = write_run(tmp_path, Made("lora_bf16")) / "record.json"
    record = read_json(path, RunRecord)
    unknown = {"peak_resident_bytes": None}
    phases = tuple(cost.model_copy(update=unknown) for cost in record.phases)
    write_json(path, record.model_copy(update={"phases": phases}))
    evidence = build_from(tmp_path, budget_memory_bytes=100 << 30).evidence
    assert evidence.by_label["lora_bf16"].peak_bytes(evidence.memory_kind) is None
    found = runner_up(evidence, evidence.by_label["qlora_nf4"])
    assert found is not None
    assert found.label == "qlora_nf4_dq"


def test_a_variant_that_is_shown_to_be_worse_is_no_rival(tmp_path: Path) -> None:
    """An untrained row beside them widens all comparisons, but not the one that chose."""
    surely = 0
    for number, ratio in enumerate((0.004, 0.006, 0.008, 0.01, 0.012, 0.014)):
        runs = [Made("lora_bf16", seed=seed) for seed in range(3)]
        runs += [Made("qlora_nf4", seed=seed, log_ratio=ratio) for seed in range(3)]
        runs += [Made(f"base{kind}", log_ratio=0.3) for kind in ("", "_nf4", "_nf4_dq")]
        write_runs(tmp_path / str(number), runs)
        limited = said(build_from(tmp_path / str(number), max_loss=0.01))
        text = said(build_from(tmp_path / str(number)))
        assert ("may be as good" in limited) == ("may be as good" in text), "asked in either way"
        best = "lora_bf16 is the best of the 2 trained variants" in text
        assert not (best and "qlora_nf4 may be as good or better" in text), ratio
        surely += best
    assert surely


QUIET = 0.0002  # noise between seeds, so that two in a hundred are surely a difference


def four(variant: str, log_ratio: float = 0.0, memory: float = 1.0) -> list[Made]:
    return [
        Made(variant, seed=seed, log_ratio=log_ratio, memory=memory, seed_noise=QUIET, trees=60)
        for seed in range(4)
    ]


@pytest.mark.parametrize("wish", [{"margin": 0.05}, {"max_loss": 0.05}])
def test_a_better_one_that_is_not_chosen_is_said_to_be_better(
    tmp_path: Path, wish: dict[str, float]
) -> None:
    """What is cheaper and surely loses little is chosen, though another one is surely better."""
    write_runs(tmp_path, [*four("lora_bf16", memory=2.0), *four("qlora_nf4", 0.02, 0.5)])
    text = said(build_from(tmp_path, **wish))
    assert "Recommended: qlora_nf4" in text
    option = "--margin" if "margin" in wish else "--max-loss"
    assert f"lora_bf16 is better (95 % confidence): a smaller {option} may choose it." in text
    for wrong in ("cannot tell which", "may be as good or better", "May be the best"):
        assert wrong not in text


def test_of_several_that_may_be_the_best_none_is_the_cheaper_choice(tmp_path: Path) -> None:
    runs = [*four("lora_bf16", memory=2.0), *four("lora_bf16_r64", memory=3.0)]
    write_runs(tmp_path, [*runs, *four("qlora_nf4", 0.02, 0.5)])
    text = said(build_from(tmp_path, margin=0.05))
    assert "Recommended: qlora_nf4" in text
    assert "May be the best (95 % confidence): lora_bf16, lora_bf16_r64, not qlora_nf4;" in text
    assert "One of lora_bf16, lora_bf16_r64 is better (95 % confidence)" in text
    assert "may be as good or better" not in text


def test_nothing_is_said_to_be_better_than_a_row_that_was_not_compared(tmp_path: Path) -> None:
    """Its items are lost, so only its mean is known, which is the best of all."""
    write_runs(tmp_path, [*four("lora_bf16", memory=2.0), *four("qlora_nf4", 0.02, 0.5)])
    for made in four("lora_bf16_r8", -0.01, 0.4):
        for path in (write_run(tmp_path, made) / "items").iterdir():
            path.unlink()
    text = said(build_from(tmp_path, margin=0.01))
    assert "is better (95 % confidence)" not in text
    assert "lora_bf16 is the best of the 2 trained variants (95 % confidence)" in text
    assert "scored on too few or other items: lora_bf16_r8." in text
