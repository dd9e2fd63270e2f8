"""Questions: which pairs of rows answer something, and with what words."""

from __future__ import annotations

from pathlib import Path

from harness.records.store import RunStore, StoredRun
from harness.report.questions import GAIN, Question, questions
from harness.report.rows import make_rows
from tests.report.records import Made, build_from, write_runs


def asked(root: Path, *runs: Made) -> list[Question]:
    write_runs(root, runs)
    found = [run for run in RunStore(root).scan() if isinstance(run, StoredRun)]
    return questions(make_rows(found))


def pairs(found: list[Question], text: str) -> list[tuple[str, str]]:
    return [(one.row.label, one.against.label) for one in found if one.text == text]


def test_bases_are_compared_with_the_plain_one(tmp_path: Path) -> None:
    found = asked(tmp_path, Made("base"), Made("base_nf4"), Made("base_nf4_dq"))
    assert pairs(found, "what nf4 costs the base") == [("base_nf4", "base")]
    assert pairs(found, "what nf4+dq costs the base") == [("base_nf4_dq", "base")]
    assert pairs(found, "what double quantization changes") == [("base_nf4_dq", "base_nf4")]


def test_training_is_compared_with_the_same_weights_untrained(tmp_path: Path) -> None:
    found = asked(tmp_path, Made("base"), Made("base_nf4"), Made("lora_bf16"), Made("qlora_nf4"))
    assert pairs(found, GAIN) == [("lora_bf16", "base"), ("qlora_nf4", "base_nf4")]
    assert pairs(found, "quantized and trained, against the plain base") == [("qlora_nf4", "base")]
    assert pairs(found, "what quantization costs after training") == [("qlora_nf4", "lora_bf16")]


def test_without_a_base_nothing_is_asked_of_it(tmp_path: Path) -> None:
    found = asked(tmp_path, Made("lora_bf16"), Made("qlora_nf4"))
    assert [one.text for one in found] == ["what quantization costs after training"]


def test_each_rank_is_compared_with_the_next_lower_and_the_scale_is_said(tmp_path: Path) -> None:
    ranks = [Made("lora_bf16", settings=(f"adapter.r={rank}",)) for rank in (64, 8, 16)]
    texts = [one.text for one in asked(tmp_path, *ranks)]
    assert texts == [
        "what rank 16 changes against 8 (alpha/r 2 against 4)",
        "what rank 64 changes against 16 (alpha/r 0.5 against 2)",
    ]


def test_ranks_of_variants_that_differ_elsewhere_are_not_compared(tmp_path: Path) -> None:
    low = Made("lora_bf16", settings=("adapter.r=8",))
    high = Made("lora_bf16", settings=("adapter.r=16", "training.learning_rate=0.001"))
    assert asked(tmp_path, low, high) == []


def test_a_run_that_failed_asks_nothing(tmp_path: Path) -> None:
    assert asked(tmp_path, Made("base"), Made("lora_bf16", status="oom")) == []


def test_answers_are_paired_and_judged_in_the_terms_of_the_score(tmp_path: Path) -> None:
    runs = [Made("base"), *(Made("lora_bf16", seed=s, log_ratio=-0.2) for s in range(3))]
    write_runs(tmp_path, runs)
    (answer,) = build_from(tmp_path).evidence.answers
    assert answer.question.text == GAIN
    assert answer.difference.verdict == "better"
    assert answer.difference.estimate < -0.1
    assert answer.difference.low is not None
    assert answer.difference.low < answer.difference.estimate
