"""Summary: the question, the answer and its price, and everything that limits it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.record import RunRecord
from harness.report.blocks import Block, Caveat, Details, Facts, Prose
from harness.report.evidence import Evidence
from harness.report.summary import caveats, lead, meaningless, summary_section
from harness.spec.model import RandomSource
from harness.spec.storage import read_json, write_json
from tests.report.records import Made, build_from, write_run, write_runs
from tests.report.tables import said


def three(variant: str, log_ratio: float, **changes: object) -> list[Made]:
    return [Made(variant, seed=s, log_ratio=log_ratio, **changes) for s in range(3)]  # type: ignore[arg-type]


def evidence(root: Path, *runs: Made, **wishes: object) -> Evidence:
    write_runs(root, runs)
    return build_from(root, **wishes).evidence


def blocks(found: Evidence) -> tuple[Block, ...]:
    section = summary_section(found)
    assert section is not None
    return section.blocks


def change(folder: Path, **fields: object) -> None:
    record = read_json(folder / "record.json", RunRecord)
    write_json(folder / "record.json", record.model_copy(update=fields))


def test_without_runs_it_says_how_to_begin(tmp_path: Path) -> None:
    text = said(summary_section(evidence(tmp_path)))
    assert "No run has been scored yet: suite quick has no runs." in text
    assert "python -m harness run --variant qlora_nf4" in text


def test_of_failures_alone_it_says_how_each_ended(tmp_path: Path) -> None:
    runs = Made("lora_bf16", status="oom"), Made("lora_bf16", seed=1, status="failed")
    text = said(summary_section(evidence(tmp_path, *runs)))
    assert "none of 2 runs ended well" in text
    assert "lora_bf16, seed 0: out of memory in train" in text
    assert "lora_bf16, seed 1: failed in train" in text


def test_of_one_variant_it_says_what_training_changed(tmp_path: Path) -> None:
    text = said(summary_section(evidence(tmp_path, Made("lora_bf16", log_ratio=-0.2))))
    assert text.startswith("What does training lora_bf16 change in")
    assert "Recommended" not in text
    untrained = said(summary_section(evidence(tmp_path / "base", Made("base"))))
    assert untrained.startswith("How good is base, untrained")


def test_of_several_it_recommends_one_with_its_price(tmp_path: Path) -> None:
    found = evidence(tmp_path, *three("lora_bf16", -0.2), *three("qlora_nf4", 0.2, memory=0.5))
    question, answer, *_ = blocks(found)
    assert isinstance(question, Prose)
    assert question.text.startswith("Which of 2 variants to use for")
    assert "Ranked by perplexity; differences up to 1 % do not matter." in question.text
    assert isinstance(answer, Prose)
    assert answer.text.startswith("Recommended: lora_bf16. ")
    (price,) = [block for block in blocks(found) if isinstance(block, Facts)]
    assert price.title == "Compared with the runner-up, qlora_nf4"
    assert [fact.title for fact in price.facts][:2] == ["perplexity", "peak memory"]


def test_limits_are_part_of_the_question(tmp_path: Path) -> None:
    found = evidence(
        tmp_path,
        *three("lora_bf16", -0.2),
        *three("qlora_nf4", 0.2),
        budget_memory_bytes=12 << 30,
        max_loss=0.02,
    )
    (question, *_) = blocks(found)
    assert isinstance(question, Prose)
    assert "within 12.0 GiB of memory and losing at most 2.00 % against lora_bf16?" in question.text


def test_where_nothing_fits_that_is_the_answer(tmp_path: Path) -> None:
    found = evidence(tmp_path, *three("lora_bf16", -0.2), Made("base"), budget_memory_bytes=1 << 20)
    assert "Nothing fits. 0 of 1 scored rows fit into 1.00 MiB" in said(summary_section(found))


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([Made("lora_bf16"), Made("base")], "Recommended: "),
        ([Made("base"), Made("base_nf4")], "Nothing was trained. The best as it is: "),
    ],
)
def test_what_an_answer_begins_with(tmp_path: Path, runs: list[Made], words: str) -> None:
    assert lead(evidence(tmp_path, *runs)) == words


def test_random_weights_have_a_least_bad_choice(tmp_path: Path) -> None:
    for variant in ("lora_bf16", "qlora_nf4"):
        folder = write_run(tmp_path, Made(variant))
        plan = read_json(folder / "record.json", RunRecord).plan
        model = plan.model.model_copy(
            update={"source": RandomSource(kind="random", tokenizer="smollm2_135m_instruct")}
        )
        change(folder, plan=plan.model_copy(update={"model": model}))
    found = build_from(tmp_path).evidence
    assert meaningless(found)
    assert lead(found) == "Least bad choice: "
    assert any("Random weights" in text for text in caveats(found))


def test_runs_that_shared_a_device_are_said_to_have(tmp_path: Path) -> None:
    change(write_run(tmp_path, Made("lora_bf16")), shared=True)
    found = list(caveats(build_from(tmp_path).evidence))
    assert any("Some runs shared their device with others" in text for text in found)


def test_likelihoods_of_what_sees_later_tokens_are_said_to_be_no_predictions(
    tmp_path: Path,
) -> None:
    text = " ".join(caveats(evidence(tmp_path, Made("lily"), Made("lora_bf16"))))
    assert "depends on later tokens too: lily. Their perplexities" in text
    assert "later tokens" not in " ".join(caveats(evidence(tmp_path / "2", Made("lora_bf16"))))


def test_many_single_trainings_are_counted_not_named(tmp_path: Path) -> None:
    single = ("qlora_nf4", "qlora_nf4_dq", "qlora_fp4", "lora_bf16_r8", "lora_bf16_r64")
    found = evidence(tmp_path, *three("lora_bf16", 0.0), *map(Made, single))
    text = " ".join(caveats(found))
    assert "One seed only, so no verdict is given: 5 rows, see the ranking." in text


def test_what_was_run_is_folded_away_with_what_was_set(tmp_path: Path) -> None:
    found = evidence(
        tmp_path, Made("lora_bf16", settings=("adapter.r=4",)), Made("base", status="failed")
    )
    settings = next(
        block
        for block in blocks(found)
        if isinstance(block, Details) and block.summary == "Settings of these runs"
    )
    text = " ".join(block.text for block in settings.blocks if isinstance(block, Prose | Caveat))
    assert "2 variants, 1 finished run, 1 failed; model" in text
    assert "on Example CPU." in text
    assert "Every variant was trained for 28 steps, which was 28,000 tokens." in text


@pytest.mark.parametrize(("trees", "wide"), [(4, False), (28, True)])
def test_two_seeds_widen_intervals_only_where_there_are_some(
    tmp_path: Path, trees: int, wide: bool
) -> None:
    runs = [
        Made(name, seed=seed, trees=trees)
        for name in ("lora_bf16", "qlora_nf4")
        for seed in range(2)
    ]
    text = " ".join(caveats(evidence(tmp_path, *runs)))
    assert ("intervals are very wide" in text) == wide
