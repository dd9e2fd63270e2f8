"""Provenance: everything that differs between rows, and nothing that does not."""

from __future__ import annotations

from pathlib import Path

from harness.records.record import RunRecord
from harness.report.blocks import Code, Details
from harness.report.evidence import Evidence
from harness.report.provenance import flat_plan, provenance_section
from harness.spec.storage import read_json, write_json
from tests.report.records import GPU, Made, build_from, write_run, write_runs
from tests.report.tables import every_block, said, table_of


def evidence(root: Path, *runs: Made) -> Evidence:
    write_runs(root, runs)
    return build_from(root).evidence


def test_no_runs_have_no_provenance(tmp_path: Path) -> None:
    assert provenance_section(evidence(tmp_path)) is None


def test_settings_that_differ_stand_in_a_table_and_no_others(tmp_path: Path) -> None:
    found = evidence(tmp_path, Made("qlora_nf4"), Made("qlora_nf4_dq"))
    by_row = {row["variant"]: row for row in table_of(provenance_section(found), "plans")}
    assert by_row["qlora_nf4"]["quantization.double"] == "false"
    assert by_row["qlora_nf4_dq"]["quantization.double"] == "true"
    assert "training.learning_rate" not in by_row["qlora_nf4"]


def test_rows_of_one_plan_say_so(tmp_path: Path) -> None:
    found = evidence(
        tmp_path,
        Made("lora_bf16", corpus_sha256="ab" * 32),
        Made("lora_bf16", corpus_sha256="cd" * 32),
    )
    rows = table_of(provenance_section(found), "plans")
    assert {row["corpus_sha256"] for row in rows} == {"ab" * 6, "cd" * 6}, "as short as they tell"


def test_an_untrained_row_has_no_settings_of_training(tmp_path: Path) -> None:
    found = evidence(tmp_path, Made("base"), Made("lora_bf16"))
    base, lora = (flat_plan(found.by_label[name]) for name in ("base", "lora_bf16"))
    assert not [key for key in base if key.startswith(("training.", "adapter", "budget."))]
    assert lora["adapter.alpha/r"] == 2.0
    assert lora["training path that ran"] == "plain"


def test_what_only_some_rows_have_is_said_once(tmp_path: Path) -> None:
    text = said(provenance_section(evidence(tmp_path, Made("base"), Made("lora_bf16"))))
    assert "The same in every row that has them: " in text
    assert "training.learning_rate = 0.0002" in text


def test_a_replaced_setting_names_what_was_asked_used_and_why(tmp_path: Path) -> None:
    found = evidence(tmp_path, Made("lora_bf16"), Made("qlora_nf4"))
    rows = table_of(provenance_section(found), "substitutions")
    compute = next(row for row in rows if row["setting"] == "precision.compute")
    assert (compute["asked"], compute["used"]) == ("bfloat16", "float32")
    assert compute["reason"] == "no bfloat16 arithmetic on this cpu"
    assert "lora_bf16" in compute["rows"]


def test_on_a_device_that_can_do_all_nothing_was_replaced(tmp_path: Path) -> None:
    found = evidence(tmp_path, Made("lora_bf16", device=GPU))
    assert "No setting was replaced" in said(provenance_section(found))


def test_resumed_runs_are_listed_by_seed(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Made("lora_bf16", seed=3))
    record = read_json(folder / "record.json", RunRecord)
    write_json(folder / "record.json", record.model_copy(update={"resumed": 2}))
    found = provenance_section(build_from(tmp_path).evidence)
    assert table_of(found, "resumed") == [
        {"variant": "lora_bf16", "seed": "3", "earlier attempts": "2"}
    ]


def test_environments_that_differ_are_a_caveat_with_what_differs(tmp_path: Path) -> None:
    found = provenance_section(evidence(tmp_path, Made("base"), Made("lora_bf16", device=GPU)))
    assert "Not all runs were made under the same conditions." in said(found)
    rows = table_of(found, "environments")
    assert {row["rows"]: row["gpu"] for row in rows} == {"base": "–", "lora_bf16": "Example GPU"}
    assert found is not None
    (common,) = [
        block.text
        for block in every_block(found.blocks)
        if isinstance(block, Code) and "python" in block.text
    ]
    assert "packages.torch = 2.13.0" in common
    assert "gpu =" not in common


def test_a_failure_stands_with_its_last_words(tmp_path: Path) -> None:
    found = provenance_section(evidence(tmp_path, Made("base"), Made("lora_bf16", status="oom")))
    assert found is not None
    (failure,) = [
        block
        for block in found.blocks
        if isinstance(block, Details) and block.summary.startswith("lora_bf16, seed 0")
    ]
    assert failure.summary == "lora_bf16, seed 0: out of memory in train"
    (text,) = failure.blocks
    assert isinstance(text, Code)
    assert text.text == "killed by the kernel \nlast words "


def test_a_record_that_cannot_be_read_is_named_by_its_folder(tmp_path: Path) -> None:
    write_run(tmp_path, Made("base"))
    broken = write_run(tmp_path, Made("lora_bf16"))
    (broken / "record.json").write_text("{", encoding="utf-8")
    text = said(provenance_section(build_from(tmp_path).evidence))
    assert "Records that could not be read were left out:" in text
    assert "/".join(broken.parts[-3:]) in text
