"""From records to a report: rows, reference, verdicts, caveats."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UnknownName
from harness.records.record import RunRecord
from harness.records.store import RunStore, StoredRun
from harness.report.blocks import Caveat, Details, Prose, Section, Table
from harness.report.build import Report, ReportRequest, build_report
from harness.report.ranking import ranking
from harness.report.summary import caveats
from harness.report.write import markdown_page
from harness.spec.model import RandomSource
from harness.spec.storage import read_json, write_json
from tests.report.records import GPU, Made, build_from, seven, write_run, write_runs


def section(report: Report, key: str) -> Section:
    return next(found for found in report.sections if found.key == key)


def table(report: Report, name: str) -> Table:
    blocks = [block for found in report.sections for block in found.blocks]
    blocks += [inner for block in blocks if isinstance(block, Details) for inner in block.blocks]
    return next(b for b in blocks if isinstance(b, Table) and b.name == name)


def cells(found: Table, row: int) -> dict[str, str]:
    titles = [column.title for column in found.columns]
    return dict(zip(titles, [cell.text for cell in found.rows[row]], strict=True))


def words(report: Report, key: str) -> str:
    return " ".join(
        block.text for block in section(report, key).blocks if isinstance(block, Prose | Caveat)
    )


def test_rows_are_ranked_and_failures_have_a_row(seven_runs: Path) -> None:
    report = build_from(seven_runs)
    found = ranking(report.evidence)
    labels = [row[0].text for row in found.rows]
    assert labels[0] == "lora_bf16"
    assert labels[-1] == "full_finetune"
    assert cells(found, len(labels) - 1)["verdict"] == "out of memory in train"
    assert cells(found, 0)["verdict"] == "reference"
    assert "worse" in {cells(found, index)["verdict"] for index in range(1, 7)}


def test_values_are_those_of_the_items(seven_runs: Path) -> None:
    report = build_from(seven_runs)
    row = next(row for row in report.evidence.rows if row.label == "base_nf4")
    score = row.finished[0].score("held_out", "perplexity")
    assert score is not None
    assert report.evidence.main is not None
    assert report.evidence.main.values["base_nf4"].value == pytest.approx(score.value, rel=1e-5)


def test_difference_is_the_paired_one(seven_runs: Path) -> None:
    main = build_from(seven_runs).evidence.main
    assert main is not None
    found = main.differences["base_nf4"]
    # The generator put exp(0.18 + 0.12) - 1 between them, plus noise of a few tenths of a per cent.
    assert found.estimate == pytest.approx(0.35, abs=0.02)
    assert found.low < found.estimate < found.high
    own = main.values["base_nf4"]
    assert own.low is not None
    assert own.high is not None
    assert found.high - found.low < (own.high - own.low) / own.value / 5, "pairing pays"


def test_numbers_do_not_depend_on_the_order_of_runs_or_items(
    tmp_path: Path, seven_runs: Path
) -> None:
    runs = [run for run in RunStore(seven_runs).scan() if isinstance(run, StoredRun)]
    request = ReportRequest(suite="quick")
    assert (
        build_report(runs[::-1], [], request).sections == build_report(runs, [], request).sections
    )


@pytest.mark.parametrize(
    ("runs", "caveat"),
    [
        ([Made("qlora_nf4")], "no verdict about a variant is given"),
        (
            [Made("qlora_nf4", seed=s) for s in (0, 1)],
            "Two seeds give a poor estimate of seed noise, so these intervals are very wide",
        ),
        ([Made("qlora_nf4", is_sample=True)], "it is not OASST itself"),
        ([Made("qlora_nf4", trees=6)], "Only 6 groups of held-out items: too few for an interval"),
        ([Made("qlora_nf4"), Made("base", device=GPU)], "They differ in gpu"),
        ([Made("lora_bf16")], "Settings were replaced (precision.compute)"),
        (
            [Made("lora_bf16"), Made("qlora_nf4")],
            "Every variant was trained at one learning rate (0.0002). At its own best rate",
        ),
        (
            [Made("lora_bf16"), Made("full_finetune")],
            "Every variant was trained at its file's learning rate",
        ),
        (
            [Made("lora_bf16"), Made("base"), Made("qlora_nf4", corpus_sha256="cd" * 32)],
            "Not compared on perplexity: qlora_nf4: another model, corpus or way to score",
        ),
    ],
)
def test_caveats(tmp_path: Path, runs: list[Made], caveat: str) -> None:
    write_runs(tmp_path, runs)
    assert any(caveat in text for text in caveats(build_from(tmp_path).evidence))


def test_random_weights_make_quality_meaningless(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Made("qlora_nf4"))
    record = read_json(folder / "record.json", RunRecord)
    source = RandomSource(kind="random", tokenizer="smollm2_135m_instruct")
    model = record.plan.model.model_copy(update={"source": source})
    plan = record.plan.model_copy(update={"model": model})
    write_json(folder / "record.json", record.model_copy(update={"plan": plan}))
    write_run(tmp_path, Made("lora_bf16"))
    report = build_from(tmp_path)
    assert "quality scores are meaningless" in words(report, "summary")
    assert "Least bad choice" in words(report, "summary")


def test_one_variant_in_two_settings_has_two_rows_that_say_why(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("qlora_nf4"), Made("qlora_nf4", device=GPU)])
    first, second = (row.label for row in build_from(tmp_path).evidence.rows)
    assert first.startswith("qlora_nf4 [device.")
    assert first != second


def test_reference(seven_runs: Path) -> None:
    report = build_from(seven_runs, reference="base")
    assert report.evidence.reference == "base"
    with pytest.raises(UnknownName, match="unknown reference 'bsae'") as raised:
        build_from(seven_runs, reference="bsae")
    assert "did you mean base" in str(raised.value)


def test_broken_older_and_foreign_records_are_named_and_left_out(tmp_path: Path) -> None:
    good = write_run(tmp_path, Made("qlora_nf4"))
    for name, text in {
        "cut": (good / "record.json").read_text()[:500],
        "older": '{"schema_version": 0}',
        "newer": '{"schema_version": 99}',
        "foreign": '{"hello": "world"}',
        "list": "[]",
    }.items():
        folder = tmp_path / "quick" / name / "0-abc"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(text)
    report = build_from(tmp_path)
    assert [row.label for row in report.evidence.rows] == ["qlora_nf4"]
    said = words(report, "provenance")
    for name in ("cut", "older", "newer", "foreign", "list"):
        assert f"quick/{name}/0-abc" in said


@pytest.mark.parametrize("damage", ["missing", "not parquet", "without columns"])
def test_items_that_cannot_be_read_leave_the_value_and_no_comparison(
    tmp_path: Path, damage: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_run(tmp_path, Made("lora_bf16"))
    folder = write_run(tmp_path, Made("qlora_nf4"))
    for path in (folder / "items").iterdir():
        if damage == "missing":
            path.unlink()
        elif damage == "not parquet":
            path.write_bytes(b"PAR1 no")
        else:
            pq.write_table(pa.table({"item": ["a"]}), path)
    main = build_from(tmp_path).evidence.main
    assert main is not None
    assert main.excluded == {"qlora_nf4": "no per-item values"}
    assert main.values["qlora_nf4"].low is None
    assert main.differences == {}


def test_a_run_scored_on_other_items_is_not_compared(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16"), Made("base"), Made("qlora_nf4", trees=20)])
    main = build_from(tmp_path).evidence.main
    assert main is not None
    assert main.excluded == {"qlora_nf4": "scored on other items"}
    assert set(main.differences) == {"base"}


def test_one_conversation_tree_gives_no_interval(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16", trees=1), Made("base", trees=1)])
    main = build_from(tmp_path).evidence.main
    assert main is not None
    assert main.differences == {}
    assert set(main.excluded.values()) == {"fewer than two groups of items"}


def test_the_precision_of_a_score_keeps_its_own_column(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Made("qlora_nf4"))
    record = read_json(folder / "record.json", RunRecord)
    merged = record.scores[0].model_copy(update={"precision": "merged", "value": 9.9})
    write_json(
        folder / "record.json", record.model_copy(update={"scores": (*record.scores, merged)})
    )
    titles = [column.title for column in ranking(build_from(tmp_path).evidence).columns]
    assert "perplexity ↓" in titles
    assert "perplexity (merged) ↓" in titles


def test_how_each_score_was_taken_is_said(seven_runs: Path) -> None:
    found = table(build_from(seven_runs), "protocols")
    first = cells(found, 0)
    assert (first["task"], first["metric"], first["unit"]) == (
        "held_out",
        "perplexity",
        "perplexity",
    )
    assert (first["weights scored"], first["items"]) == ("as trained", "84")
    assert first["details"] == "few_shot = 0; data = trees.jsonl"


def test_budget_and_loss_limits(seven_runs: Path) -> None:
    small = build_from(seven_runs, budget_memory_bytes=int(1.3 * 2**30))
    assert "Recommended: qlora_nf4." in words(small, "summary")
    none = build_from(seven_runs, budget_memory_bytes=2**20)
    assert "Nothing fits." in words(none, "summary")
    lossy = build_from(seven_runs, max_loss=0.15)
    assert "Recommended: qlora_nf4" in words(lossy, "summary")
    assert "lose at most 15 % against lora_bf16 (95 % confidence)" in words(lossy, "summary")
    strict = build_from(seven_runs, max_loss=0.001)
    assert "Recommended: lora_bf16." in words(strict, "summary")


def test_accounting_answers_each_question_once(seven_runs: Path) -> None:
    found = table(build_from(seven_runs), "accounting")
    asked = [(cells(found, n)["question"], cells(found, n)["row"]) for n in range(len(found.rows))]
    assert ("what nf4 costs the base", "base_nf4") in asked
    assert ("what double quantization changes", "qlora_nf4_dq") in asked
    assert len(asked) == len(set(asked))
    won = next(
        cells(found, n)
        for n, question in enumerate(asked)
        if question == ("what training gains on the same weights", "qlora_nf4")
    )
    # (0.18 + 0.02) / 0.18 of the loss
    assert won["recovered"].startswith("11")


def test_ranks_are_accounted_and_drawn(tmp_path: Path) -> None:
    made = [Made("qlora_nf4", settings=(f"adapter.r={r}",)) for r in (4, 64)]
    write_runs(tmp_path, [*made, Made("qlora_nf4")])
    report = build_from(tmp_path)
    questions = [row[0].text for row in table(report, "accounting").rows]
    assert questions == [
        "what rank 16 changes against 4 (alpha/r 2 against 8)",
        "what rank 64 changes against 16 (alpha/r 0.5 against 2)",
    ]
    assert section(report, "sweeps")


def test_every_differing_key_is_shown(seven_runs: Path) -> None:
    found = table(build_from(seven_runs), "plans")
    titles = {column.title for column in found.columns}
    assert {
        "quantization.type",
        "quantization.double",
        "method",
        "training.learning_rate",
    } <= titles
    assert "model.name" not in titles
    assert "The same in every row that has them" in words(build_from(seven_runs), "provenance")
    assert "adapter.alpha/r = 2" in words(build_from(seven_runs), "provenance")


def test_no_runs_at_all(tmp_path: Path) -> None:
    report = build_from(tmp_path)
    assert "suite quick has no runs" in words(report, "summary")
    assert "python -m harness run" in words(report, "summary")


def test_only_failures(tmp_path: Path) -> None:
    write_run(tmp_path, Made("full_finetune", status="oom"))
    report = build_from(tmp_path)
    told = words(report, "summary")
    assert "nothing to recommend: none of 1 run ended well" in told
    assert "full_finetune, seed 0: out of memory in train" in told
    assert cells(ranking(report.evidence), 0)["verdict"] == "out of memory in train"


def test_gpu_memory_is_the_whole_device(tmp_path: Path) -> None:
    lora, qlora = Made("lora_bf16", device=GPU), Made("qlora_nf4", device=GPU, memory=0.6)
    write_runs(tmp_path, [lora, qlora])
    report = build_from(tmp_path)
    assert report.evidence.memory_kind == "peak_device_bytes"
    assert {"quality-energy"} <= {
        block.name for block in section(report, "tradeoff").blocks if hasattr(block, "drawing")
    }


def test_costs_that_tell_no_rows_apart_have_no_figure(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16"), Made("qlora_nf4", memory=0.6)])
    (figure,) = (b for b in section(build_from(tmp_path), "tradeoff").blocks if hasattr(b, "axes"))
    assert figure.name == "quality-memory"
    assert figure.axes is not None
    assert figure.axes.quantities[figure.axes.x].title.startswith("peak memory")


def test_one_row_says_what_training_changed(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("qlora_nf4", log_ratio=-0.1)])
    report = build_from(tmp_path)
    told = words(report, "summary")
    assert "What does training qlora_nf4 change in smollm2_135m_instruct?" in told
    assert re.search(r"perplexity 8\.\d+ → 6\.\d+, −2\d\.\d\d %", told)
    assert "Recommended" not in told
    assert "tradeoff" not in {found.key for found in report.sections}


def test_references_alone_are_not_called_a_recommendation(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("base"), Made("base_nf4", log_ratio=0.2)])
    told = words(build_from(tmp_path), "summary")
    assert "Nothing was trained. The best as it is: base." in told


def test_a_long_table_is_folded(tmp_path: Path) -> None:
    runs = [Made("lora_bf16", settings=(f"adapter.r={rank}",)) for rank in range(1, 18)]
    write_runs(tmp_path, runs)
    report = build_from(tmp_path)
    folds = [block for block in section(report, "provenance").blocks if isinstance(block, Details)]
    (fold,) = (block for block in folds if block.summary == "Every setting that differs")
    (table,) = fold.blocks
    assert isinstance(table, Table)
    assert len(table.rows) == 17
    assert [block for block in section(report, "ranking").blocks if isinstance(block, Table)]


def test_a_column_without_any_value_is_left_out(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("base"), Made("base_nf4", log_ratio=0.2)])
    titles = [column.title for column in ranking(build_from(tmp_path).evidence).columns]
    assert "change by training" not in titles
    assert "tokens/s" not in titles
    assert "weights" in titles


def test_a_quantized_row_that_needs_more_memory_is_explained(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16"), Made("qlora_nf4", memory=1.5)])
    said = words(build_from(tmp_path), "memory")
    assert "qlora_nf4 trains in more memory than lora_bf16 (2.93 GiB against 1.96 GiB)" in said
    assert "lora_bf16 trains in more" not in said


def test_generations_outside_the_bundled_corpus_are_not_shown(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Made("qlora_nf4"))
    assert "generations" in {found.key for found in build_from(tmp_path).sections}
    record = read_json(folder / "record.json", RunRecord)
    foreign = [g.model_copy(update={"prompt": "someone's words"}) for g in record.generations]
    write_json(folder / "record.json", record.model_copy(update={"generations": tuple(foreign)}))
    assert "generations" not in {found.key for found in build_from(tmp_path).sections}


def reuse(root: Path, made: Made, phase: str) -> None:
    """Write a run whose phase took over what another run had found."""
    folder = write_run(root, made)
    record = read_json(folder / "record.json", RunRecord)
    copied = {"seconds": 0.01, "peak_resident_bytes": 10**9, "reused": True}
    phases = [c.model_copy(update=copied if c.name == phase else {}) for c in record.phases]
    write_json(folder / "record.json", record.model_copy(update={"phases": tuple(phases)}))


def test_phases_that_were_reused_are_left_out_of_medians_and_counted(tmp_path: Path) -> None:
    write_run(tmp_path, Made("lora_bf16"))
    for seed in (1, 2):
        reuse(tmp_path, Made("lora_bf16", seed=seed), "score_base")
    report = build_from(tmp_path)
    assert cells(table(report, "time"), 0)["score_base"] == "25.0 s"
    assert "score_base in 2 of the 3 runs of lora_bf16" in words(report, "time")
    assert "reused" in ranking(report.evidence).caption


def test_what_every_run_reused_is_not_known(tmp_path: Path) -> None:
    write_run(tmp_path, Made("lora_bf16"))
    reuse(tmp_path, Made("base"), "score")
    report = build_from(tmp_path)
    base = report.evidence.by_label["base"]
    assert base.phase_seconds("score") is None
    assert base.peak_bytes("peak_resident_bytes") is None, "loading alone is no answer"
    assert base.peak_bytes("peak_resident_bytes", ["load"]) is not None
    place = next(i for i, row in enumerate(report.evidence.ranked) if row is base)
    assert cells(table(report, "time"), place)["score"] == "–"
    assert cells(table(report, "memory"), place)["score"] == "–"


def test_energy_without_the_scoring_that_was_reused_is_not_known(tmp_path: Path) -> None:
    reuse(tmp_path, Made("base", device=GPU), "score")
    write_run(tmp_path, Made("base_nf4", device=GPU))
    rows = build_from(tmp_path).evidence.by_label
    assert rows["base"].energy_joules() is None
    assert rows["base_nf4"].energy_joules() is not None


def test_nothing_is_said_of_reuse_where_every_run_did_its_own_work(seven_runs: Path) -> None:
    assert "reuse" not in markdown_page(build_from(seven_runs))


def test_resumed_runs_are_named_with_their_earlier_attempts(tmp_path: Path) -> None:
    for variant, resumed in (("base", 0), ("lora_bf16", 2), ("qlora_nf4", 0)):
        folder = write_run(tmp_path, Made(variant, seed=1))
        record = read_json(folder / "record.json", RunRecord)
        write_json(folder / "record.json", record.model_copy(update={"resumed": resumed}))
    found = table(build_from(tmp_path), "resumed")
    assert len(found.rows) == 1
    assert cells(found, 0) == {"variant": "lora_bf16", "seed": "1", "earlier attempts": "2"}


def test_nothing_is_said_of_resuming_where_no_run_was_resumed(seven_runs: Path) -> None:
    assert "resumed" not in markdown_page(build_from(seven_runs)).lower()


def test_importing_and_building_loads_neither_torch_nor_matplotlib(seven_runs: Path) -> None:
    code = (
        "import sys; sys.path.append(sys.argv[1]);"
        "from pathlib import Path; from tests.report import records; import harness.report.write;"
        "records.build_from(Path(sys.argv[2]));"
        "print(sorted({'torch', 'matplotlib', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    here = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code, here, str(seven_runs)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_seven_is_what_the_example_needs() -> None:
    assert len({made.variant for made in seven()}) == 7


def test_memory_that_was_not_predicted_is_said_and_the_rest_stands(tmp_path: Path) -> None:
    write_runs(tmp_path, seven(seeds=1))
    for path in tmp_path.rglob("record.json"):
        record = read_json(path, RunRecord)
        if record.plan.variant == "lora_bf16":
            write_json(path, record.model_copy(update={"prediction": None}))
    report = build_from(tmp_path)
    assert "Not predicted: lora_bf16 (a training step" in words(report, "memory")
    shown = [cells(table(report, "memory"), row) for row in range(7)]
    predicted = {line["variant"]: line["train predicted"] for line in shown}
    assert predicted["lora_bf16"] == predicted["base"] == "–"
    assert predicted["qlora_nf4"] != "–"


def test_energy_of_a_run_with_a_phase_that_was_not_measured_is_not_known(tmp_path: Path) -> None:
    path = write_run(tmp_path, Made("base", device=GPU)) / "record.json"
    record = read_json(path, RunRecord)
    first = record.phases[0].model_copy(update={"energy_joules": None})
    write_json(path, record.model_copy(update={"phases": (first, *record.phases[1:])}))
    assert build_from(tmp_path).evidence.by_label["base"].energy_joules() is None
