"""Evidence: which row is the reference, which score ranks, and what is corrected together."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UnknownName
from harness.report.evidence import Evidence, ReportRequest
from harness.report.pairing import ScoreKey
from harness.report.scoring import score_keys
from tests.report.records import Made, build_from, write_runs


def evidence(root: Path, *runs: Made, **wishes: object) -> Evidence:
    write_runs(root, runs)
    return build_from(root, **wishes).evidence


@pytest.mark.parametrize(
    ("variants", "reference"),
    [
        (("base", "lora_bf16", "full_finetune"), "lora_bf16"),
        (("base", "full_finetune", "qlora_nf4"), "full_finetune"),
        (("base", "qlora_nf4"), "base"),
        (("base_nf4", "qlora_nf4"), "qlora_nf4"),
        (("base_nf4",), "base_nf4"),
    ],
)
def test_the_reference_is_the_plainest_trained_variant(
    tmp_path: Path, variants: tuple[str, ...], reference: str
) -> None:
    assert evidence(tmp_path, *map(Made, variants)).reference == reference


def test_a_reference_that_failed_is_none(tmp_path: Path) -> None:
    found = evidence(tmp_path, Made("lora_bf16", status="oom"), Made("qlora_nf4"))
    assert found.reference == "qlora_nf4"
    with pytest.raises(UnknownName, match="reference"):
        build_from(tmp_path, reference="lora_bf16")


def test_a_reference_can_be_named_by_its_variant(tmp_path: Path) -> None:
    runs = (Made("lora_bf16", corpus_sha256=digest * 32) for digest in ("ab", "cd"))
    found = evidence(tmp_path, *runs, reference="lora_bf16")
    assert found.reference is not None
    assert found.by_label[found.reference].variant == "lora_bf16"


def test_no_runs_have_no_reference_and_no_score(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    assert (found.reference, found.main, found.contest, found.scorings) == (None, None, None, ())


def test_perplexity_ranks_before_other_headline_scores(tmp_path: Path) -> None:
    found = evidence(tmp_path, Made("base", answers=True))
    assert [scoring.key.title for scoring in found.scorings] == [
        "perplexity",
        "oasst_choice acc",
        "generations rouge_l",
    ]
    assert [key.task for key in score_keys(found.rows)] == [
        "held_out",
        "oasst_choice",
        "generations",
    ]


def test_rows_are_ranked_best_first_and_failures_last(tmp_path: Path) -> None:
    found = evidence(
        tmp_path,
        Made("base", log_ratio=0.3),
        Made("lora_bf16", log_ratio=-0.3),
        Made("full_finetune", status="failed"),
    )
    assert [row.label for row in found.ranked] == ["lora_bf16", "base", "full_finetune"]


def test_items_are_kept_for_the_score_that_ranks_only(tmp_path: Path) -> None:
    main, other = evidence(tmp_path, Made("base"), Made("base_nf4")).scorings
    assert main.sample is not None
    assert other.sample is None


def test_secondary_scores_are_corrected_together(tmp_path: Path) -> None:
    runs = [
        Made(name, seed=seed, log_ratio=ratio)
        for name, ratio in (("lora_bf16", 0.0), ("qlora_nf4", 0.4), ("qlora_fp4", 0.8))
        for seed in range(3)
    ]
    found = evidence(tmp_path, *runs)
    (_, secondary) = found.scorings
    for difference in secondary.differences.values():
        if difference.p_value is not None:
            assert difference.adjusted_p is not None
            assert difference.adjusted_p >= difference.p_value


def test_the_answer_to_a_question_that_the_ranking_holds_is_the_same(tmp_path: Path) -> None:
    runs = [Made("base"), *(Made("lora_bf16", seed=seed, log_ratio=-0.2) for seed in range(3))]
    found = evidence(tmp_path, *runs)
    assert found.reference == "lora_bf16"
    assert found.main is not None
    (answer,) = found.answers
    main = found.main.differences["base"]
    assert answer.difference.adjusted_p == main.adjusted_p
    assert answer.difference.verdict == "better"
    assert main.verdict == "worse", "the same difference, seen from the other side"


def test_a_request_of_an_older_report_is_read(tmp_path: Path) -> None:
    old = ReportRequest.model_validate({"suite": "quick", "resamples": 2000})
    assert old == ReportRequest(suite="quick")


def test_a_score_that_few_rows_have_keeps_the_others_out_of_its_values(tmp_path: Path) -> None:
    found = evidence(tmp_path, Made("base"), Made("lora_bf16", answers=True))
    answers = next(
        s for s in found.scorings if s.key == ScoreKey("generations", "rouge_l", "training")
    )
    assert list(answers.values) == ["lora_bf16"]
    assert answers.differences == {}
