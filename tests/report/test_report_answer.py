"""The lines that end a command say what the runs have shown."""

from __future__ import annotations

from pathlib import Path

from harness.records.record import RunRecord
from harness.report.answer import answer_lines
from harness.spec.storage import read_json, write_json
from tests.report.records import Made, build_from, write_run


def test_a_single_run_says_what_training_changed(tmp_path: Path) -> None:
    write_run(tmp_path, Made("qlora_nf4"))
    lines = answer_lines(build_from(tmp_path).evidence)
    assert any("qlora_nf4: perplexity" in line and "→" in line and "%" in line for line in lines)
    assert not any("best" in line or "Recommended" in line for line in lines)


def test_each_form_of_a_result_is_named(tmp_path: Path) -> None:
    write_run(tmp_path, Made("qlora_nf4"))
    path = next(tmp_path.rglob("record.json"))
    record = read_json(path, RunRecord)
    merged = [
        score.model_copy(update={"precision": "merged"})
        for score in record.scores
        if score.stage == "after" and score.headline
    ]
    write_json(path, record.model_copy(update={"scores": (*record.scores, *merged)}))
    lines = answer_lines(build_from(tmp_path).evidence)
    assert any(line.startswith("qlora_nf4: perplexity (merged) ") for line in lines)
    assert len(set(lines)) == len(lines)


def test_several_say_what_is_recommended_at_what_price_and_how_sure(tmp_path: Path) -> None:
    for variant in ("base", "qlora_nf4", "lora_bf16"):
        write_run(tmp_path, Made(variant))
    lines = answer_lines(build_from(tmp_path).evidence)
    assert lines[0].startswith("Recommended: ")
    assert any(line.startswith("Price: peak memory") for line in lines)
    assert "order of single trainings" in lines[-1]
