"""Recommend: which row is chosen within limits, with what reasons, and how sure it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.record import RunRecord
from harness.report.recommend import Recommendation, recommend
from harness.spec.storage import read_json, write_json
from tests.report.records import GPU, Made, build_from, write_run, write_runs

GIB = 1 << 30


def three(variant: str, log_ratio: float, memory: float = 1.0, **changes: object) -> list[Made]:
    """Three seeds of a variant."""
    return [
        Made(variant, seed=seed, log_ratio=log_ratio, memory=memory, **changes)  # type: ignore[arg-type]
        for seed in range(3)
    ]


def choice(root: Path, runs: list[Made], **wishes: object) -> Recommendation:
    write_runs(root, runs)
    found = recommend(build_from(root, **wishes).evidence)
    assert found is not None
    return found


def label(found: Recommendation) -> str | None:
    return found.row.label if found.row else None


def test_the_best_is_taken_where_nothing_else_is_near_it(tmp_path: Path) -> None:
    runs = [*three("lora_bf16", -0.2), *three("qlora_nf4", 0.2, memory=0.5)]
    found = choice(tmp_path, runs)
    assert label(found) == "lora_bf16"
    assert found.reasons[0].startswith("It has the best perplexity,")
    assert found.sureness == ("lora_bf16 is the best of the 2 trained variants (95 % confidence).",)


def test_what_is_shown_to_be_as_good_and_needs_less_memory_is_taken(tmp_path: Path) -> None:
    runs = [*three("lora_bf16", -0.2), *three("qlora_nf4", -0.199, memory=0.5)]
    found = choice(tmp_path, runs, margin=0.05)
    assert label(found) == "qlora_nf4"
    assert "shown to lie within 5 % of the best variant" in found.reasons[0]
    assert "The best perplexity is that of lora_bf16" in found.reasons[0]


def test_single_trainings_are_ranked_and_nothing_is_shown_of_them(tmp_path: Path) -> None:
    found = choice(tmp_path, [Made("lora_bf16", log_ratio=-0.2), Made("qlora_nf4")])
    assert label(found) == "lora_bf16"
    assert "of these runs" in found.reasons[0]
    assert found.sureness[0] == "Nothing tells these 2 trained variants apart."
    assert "single trainings" in found.sureness[1]
    assert "--seeds 0..2" in found.sureness[1]


@pytest.mark.parametrize("seeds", [1, 2])
def test_on_a_few_items_the_cheaper_within_the_margin_is_taken_and_nothing_is_sure(
    tmp_path: Path, seeds: int
) -> None:
    """Four held-out trees give no verdict, and two per cent shall not matter."""
    worse = [Made("lora_bf16", seed=s, log_ratio=-0.18, trees=4) for s in range(seeds)]
    best = [Made("qlora_nf4", seed=s, log_ratio=-0.2, memory=2, trees=4) for s in range(seeds)]
    found = choice(tmp_path, [*worse, *best], margin=0.05)
    assert label(found) == "lora_bf16"
    (reason,) = found.reasons
    assert "came within 5 % of the best of these runs (qlora_nf4, " in reason
    assert "and of those so close it needs the least memory, 1.96 GiB." in reason
    assert found.sureness[0] == "Nothing tells these 2 trained variants apart."
    assert found.sureness[1].startswith("Only 4 groups of held-out items were scored;")


def test_of_equal_memory_the_faster_is_taken_and_set_up_decides_nothing(tmp_path: Path) -> None:
    """The planner's memory tells only where nothing that was measured does."""
    slow = Made("qlora_nf4", log_ratio=-0.22, memory=0.9, seconds=60, once=4, trees=4)
    fast = Made("lora_bf16", log_ratio=-0.2, memory=1.0, seconds=70, once=40, trees=4)
    found = choice(tmp_path, [slow, fast], margin=0.05)
    assert label(found) == "lora_bf16"
    assert "its steps take the least time, 30.0 s; their peak memories count as a tie." in str(
        found
    )


def test_where_all_may_be_the_best_the_cheaper_within_the_margin_is_taken(tmp_path: Path) -> None:
    noisy = {"seed_noise": 0.1}
    runs = [*three("lora_bf16", -0.2, memory=2.0, **noisy), *three("qlora_nf4", -0.195, **noisy)]
    found = choice(tmp_path, runs, margin=0.2)
    assert label(found) == "qlora_nf4"
    assert "it needs the least memory" in found.reasons[0]
    assert "these data cannot tell which" in found.sureness[0]


def test_the_only_candidate_was_compared_with_no_other(tmp_path: Path) -> None:
    alone = choice(tmp_path / "one", [Made("base"), Made("qlora_nf4", log_ratio=-0.2)])
    assert alone.sureness[0] == (
        "qlora_nf4 is the only trained variant to choose: it was compared with no other."
    )
    assert alone.sureness[1].startswith("One training says nothing certain about another")
    thrice = choice(tmp_path / "three", [Made("base"), *three("qlora_nf4", -0.2)])
    (text,) = thrice.sureness
    assert "compared with no other. Against base: −" in text
    assert text.endswith("%], better.")


@pytest.mark.parametrize(("seeds", "trees"), [(1, 28), (2, 4), (2, 28)])
def test_no_recommendation_goes_without_how_sure_it_is(
    tmp_path: Path, seeds: int, trees: int
) -> None:
    variants = {"lora_bf16": 0.0, "qlora_nf4": 0.002}
    runs = [
        Made(name, seed=s, log_ratio=ratio, trees=trees)
        for name, ratio in variants.items()
        for s in range(seeds)
    ]
    write_runs(tmp_path, runs)
    for wishes in ({}, {"max_loss": 0.01}, {"budget_memory_bytes": 8 * GIB}):
        found = recommend(build_from(tmp_path, **wishes).evidence)
        assert found is not None
        assert found.row is not None
        assert found.sureness, wishes


def test_a_single_training_beside_others_is_not_judged(tmp_path: Path) -> None:
    runs = [*three("lora_bf16", -0.2), *three("qlora_nf4", 0.1), Made("qlora_fp4", log_ratio=-0.5)]
    found = choice(tmp_path, runs)
    assert label(found) == "lora_bf16", "however good one training came out"
    assert found.sureness[-1].endswith("scored on too few or other items: qlora_fp4.")


def test_an_untrained_base_is_recommended_only_where_nothing_was_trained(tmp_path: Path) -> None:
    runs = [Made("base", log_ratio=-1.0), *three("lora_bf16", 0.1), *three("qlora_nf4", 0.3)]
    assert label(choice(tmp_path / "both", runs)) == "lora_bf16"
    assert (
        label(choice(tmp_path / "alone", [Made("base"), Made("base_nf4", log_ratio=0.18)]))
        == "base"
    )


@pytest.mark.parametrize(
    ("budget", "chosen", "words"),
    [
        (3 * GIB, "lora_bf16", "2 of 2 scored rows fit into 3.00 GiB."),
        (int(1.5 * GIB), "qlora_nf4", "1 of 2 scored rows fit into 1.50 GiB."),
        (GIB // 2, None, "0 of 2 scored rows fit into 512 MiB; the smallest needs"),
    ],
)
def test_a_memory_limit_comes_first(
    tmp_path: Path, budget: int, chosen: str | None, words: str
) -> None:
    runs = [*three("lora_bf16", -0.2), *three("qlora_nf4", 0.2, memory=0.5)]
    found = choice(tmp_path, runs, budget_memory_bytes=budget)
    assert label(found) == chosen
    assert found.reasons[0].startswith(words)


def test_the_least_memory_of_those_that_surely_lose_little(tmp_path: Path) -> None:
    runs = [*three("lora_bf16", -0.2), *three("qlora_nf4", -0.195, memory=0.5)]
    found = choice(tmp_path, runs, max_loss=0.05)
    assert label(found) == "qlora_nf4"
    assert found.reasons == (
        "One other variant loses at most 5 % against lora_bf16 (95 % confidence): qlora_nf4.",
        "Of these and lora_bf16 itself, qlora_nf4 needs the least memory, 1,001 MiB.",
    )
    assert found.sureness[0].startswith("Against lora_bf16, qlora_nf4 loses +")


def test_the_reference_is_not_found_to_lose_little_against_itself(tmp_path: Path) -> None:
    runs = [*three("lora_bf16", -0.2), *three("qlora_nf4", 0.2, memory=0.5)]
    found = choice(tmp_path, runs, max_loss=0.01)
    assert label(found) == "lora_bf16"
    (reason,) = found.reasons
    assert reason.startswith("No other variant is shown to lose at most 1 % against lora_bf16")
    assert "lora_bf16 needs " in reason
    assert found.sureness[0].startswith("Loss is counted from lora_bf16, which loses nothing")


def test_a_loss_that_is_not_sure_recommends_nothing_and_says_how_large_it_may_be(
    tmp_path: Path,
) -> None:
    runs = [
        *three("lora_bf16", -0.2, memory=4.0),
        *three("qlora_nf4", -0.19, memory=0.5, seed_noise=0.05),
    ]
    limits = {"max_loss": 0.02, "budget_memory_bytes": 2 * GIB}
    found = choice(tmp_path, runs, **limits)
    assert found.row is None
    assert "No variant is shown to lose at most 2 % against lora_bf16." in found.reasons
    if found.sureness:
        assert "its true loss may be as large as" in found.sureness[0]


def test_one_training_has_no_known_loss(tmp_path: Path) -> None:
    runs = [Made("lora_bf16", memory=4.0), Made("qlora_nf4", log_ratio=0.001, memory=0.5)]
    found = choice(tmp_path, runs, max_loss=0.05, budget_memory_bytes=2 * GIB)
    assert found.row is None
    assert found.sureness[0].endswith("with one training each its true loss is unknown.")
    assert "One training says nothing certain" in found.sureness[1]


def test_nothing_scored_recommends_nothing(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("lora_bf16", status="oom")])
    assert recommend(build_from(tmp_path).evidence) is None


@pytest.mark.parametrize(
    ("margin", "words"),
    [
        (0.2, "came within 20 % of the best of those that were judged (lora_bf16, "),
        (0.0001, "It has the best perplexity of those that were judged, "),
    ],
)
def test_the_best_is_that_of_those_that_were_judged(
    tmp_path: Path, margin: float, words: str
) -> None:
    once = Made("qlora_fp4", log_ratio=-0.5)
    noisy = {"seed_noise": 0.1}
    runs = [*three("lora_bf16", -0.2, memory=2.0, **noisy), *three("qlora_nf4", -0.195, **noisy)]
    (reason,) = choice(tmp_path, [once, *runs], margin=margin).reasons
    assert words in reason


def test_so_is_a_best_that_beats_them(tmp_path: Path) -> None:
    runs = [*three("lora_bf16", -0.2), *three("qlora_nf4", 0.2), Made("qlora_fp4", log_ratio=-0.5)]
    (reason,) = choice(tmp_path, runs).reasons
    assert reason.startswith("It has the best perplexity of those that were judged, ")


@pytest.mark.parametrize(
    ("memory", "time", "words"),
    [
        (False, True, "its steps take the least time, 26.0 s; their peak memories are not known."),
        (True, False, "none is cheaper: measured memory counts as a tie, and time is not known."),
        (False, False, "none is cheaper: neither memory nor time is known."),
    ],
)
def test_what_was_not_measured_is_no_tie(
    tmp_path: Path, memory: bool, time: bool, words: str
) -> None:
    for name, seconds in (("lora_bf16", 30), ("qlora_nf4", 60)):
        made = Made(name, log_ratio=-0.2, seconds=seconds, trees=4, device=GPU)
        forget(write_run(tmp_path, made), memory=memory, time=time)
    found = recommend(build_from(tmp_path, margin=0.05).evidence)
    assert found is not None
    assert words in found.reasons[0]


def forget(folder: Path, *, memory: bool, time: bool) -> None:
    """Leave out of a record what is not to be known of its costs."""
    record = read_json(folder / "record.json", RunRecord)
    phases = record.phases if time else [one for one in record.phases if one.name != "train"]
    if not memory:
        peaks = ("resident", "allocated", "reserved", "device")
        nothing = {f"peak_{name}_bytes": None for name in peaks}
        phases = [one.model_copy(update=nothing) for one in phases]
    training = record.training
    if training is not None and not time:
        training = training.model_copy(update={"losses": ()})
    update = {"phases": tuple(phases), "training": training}
    write_json(folder / "record.json", record.model_copy(update=update))
