"""Claims judged from records: each kind of comparison, both ways, and what stays open."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness.records.corpus_result import FunnelRow
from harness.records.record import RunRecord
from harness.records.store import StoredRun
from harness.records.validation import ValidationPoint, ValidationResult
from harness.report.claims.about import MachineUse, about_section
from harness.report.claims.brief import findings_brief
from harness.report.claims.compared import Sides, sides_of
from harness.report.claims.decide import Interval, Leaning, corrected, lean, regions
from harness.report.claims.ground import Ground, VariantRuns, main_ground, make_grounds
from harness.report.claims.judge import Judgement, judge, main_judged
from harness.report.claims.measures import measure
from harness.report.claims.page import (
    claims_page,
    evidence,
    ground_here,
    measured,
    notes,
    size_here,
    verdicts,
)
from harness.report.claims.publish import is_beside, publish_findings, write_findings
from harness.report.claims.ratios import Curve, times_as_fast
from harness.report.pairing import ScoreKey
from harness.report.sides import read_runs
from harness.report.statistics.noise import Noise
from harness.report.write import markdown_page
from harness.spec.claim import AnyCheck, Claim, ScoreCheck
from harness.spec.derived_names import LONGEST_NAME
from harness.spec.model import RandomSource
from harness.spec.registry import claim_names, load_claim
from harness.spec.schema import parse
from harness.studies.published import publish_study
from tests import rebuild
from tests.report.records import CPU, GPU, Made, seven, write_runs
from tests.studies.stub import Bench, World

QUICK = Path(__file__).parents[2] / "reports" / "quick"


def claim(**check: object) -> Claim:
    """A made-up claim with one comparison."""
    data: dict[str, Any] = {
        "name": "made_up",
        "sentence": "One is better than the other",
        "source": {"title": "A paper", "link": "arXiv:0000.00000"},
        "claimed": {"billions": [7.0]},
        "checks": [{"kind": "score", "variant": ["qlora_nf4"], "against": ["lora_bf16"], **check}],
    }
    return parse(Claim, data, where="made_up.toml")


def runs_of(root: Path, runs: Sequence[Made]) -> list[StoredRun]:
    write_runs(root, runs)
    found, _ = read_runs(root)
    return found


def around(middle: float, noise: Noise) -> Interval:
    """The interval of an estimate, at every error."""

    def interval(alpha: float) -> tuple[float, float]:
        half = noise.half_width(alpha)
        return middle - half, middle + half

    return interval


def of_one(found: list[Judgement]) -> Judgement:
    (one,) = found
    return one


@pytest.mark.parametrize(
    ("says", "margin", "outcome"),
    [
        ("worse", 0.01, "reproduced"),
        ("better", 0.01, "contradicted"),
        ("equal", 0.01, "contradicted"),
        ("reaches", 0.01, "contradicted"),
        ("equal", 0.5, "reproduced"),
        ("reaches", 0.5, "reproduced"),
    ],
)
def test_a_clear_difference_settles_every_sentence(
    tmp_path: Path, says: str, margin: float, outcome: str
) -> None:
    """QLoRA is ten per cent worse in these runs."""
    runs = runs_of(tmp_path, seven())
    assert of_one(judge([claim(says=says, margin=margin)], runs)).outcome == outcome


def ends(text: str) -> tuple[float, float]:
    """The interval in a text of evidence, in per cent."""
    found = re.search(r"\[(\S+?)(?: %)?, (\S+?)(?: %)?\]", text)
    assert found is not None, text
    low, high = (float(end.replace("−", "-")) for end in found.groups())
    return low, high


@pytest.mark.parametrize(("says", "side"), [("worse", "reproduced"), ("better", "contradicted")])
def test_a_claim_judged_alone_shows_the_interval_of_its_verdict(
    tmp_path: Path, says: str, side: str
) -> None:
    """One end decides, at 5 %: the two-sided interval of 95 % would hold zero here."""
    names = (("lora_bf16", 0.0), ("qlora_nf4", 0.024))
    made = [
        Made(name, seed=seed, log_ratio=more, seed_noise=0.01)
        for name, more in names
        for seed in range(3)
    ]
    runs = runs_of(tmp_path, made)
    one = of_one(judge([claim(says=says, margin=0.05)], runs))
    assert one.outcome == side
    errors = one.findings[0].measured.errors
    assert errors is not None
    assert errors.fits > 0.025
    assert ends(evidence(one))[0] > 0
    assert ends(measured(one))[0] > 0
    assert "each end one-sided, 95 %" in evidence(one)
    page = markdown_page(claims_page([one]))
    assert "wider intervals" not in page
    assert "the interval shown is that of its verdict" in page


def test_claims_judged_together_show_intervals_of_95_per_cent(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, seven())
    judged = judge([claim(says="worse"), claim(says="reaches")], runs)
    assert not any("one-sided" in evidence(one) for one in judged)
    assert "wider intervals" in markdown_page(claims_page(judged))


def test_a_claim_judged_alone_pays_for_the_looks_in_what_it_shows(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, seven(seeds=4))
    (one,) = judge([claim(says="worse")], runs, looked=True)
    assert "each end one-sided, 98.3 %" in evidence(one)


def test_one_training_each_is_undecided_and_says_what_would_decide(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, seven(seeds=1))
    found = of_one(judge([claim(says="worse")], runs))
    assert found.outcome == "undecided"
    assert "one training each" in evidence(found)
    assert "To decide it: three seeds or more" in evidence(found)


@pytest.mark.parametrize(
    ("worse", "noise", "wanted"),
    [
        (0.0, 0.002, "at least 7 seeds"),
        (0.004, 0.002, "at least 23 seeds"),
        (0.004, 0.003, "more seeds and more items"),
        (0.004, 0.02, "more seeds or more items"),
    ],
)
def test_a_difference_in_noise_is_undecided(
    tmp_path: Path, worse: float, noise: float, wanted: str
) -> None:
    """The nearer an estimate is to the margin the more it takes; beyond it equality is no use."""
    made = [
        Made(name, seed=seed, log_ratio=ratio, seed_noise=noise)
        for name, ratio in (("lora_bf16", 0.0), ("qlora_nf4", worse))
        for seed in range(3)
    ]
    found = of_one(judge([claim(says="equal")], runs_of(tmp_path, made)))
    assert found.outcome == "undecided"
    assert evidence(found).partition("To decide it: ")[2].startswith(wanted)


LONGER = ("suite.training.sequence_length=2048", "suite.training.weight_decay=0.1")


def either(own: tuple[str, ...], other: tuple[str, ...] = ()) -> list[Made]:
    """Two variants with such settings, three seeds each; the first is five per cent better."""
    made = [Made("lora_bf16", other, seed=seed) for seed in range(3)]
    return [*made, *(Made("qlora_nf4", own, seed=seed, log_ratio=-0.05) for seed in range(3))]


def aged(runs: Sequence[StoredRun], *suites: str) -> list[StoredRun]:
    """The runs as an older harness left them: without what their suites decided."""

    def old(run: StoredRun) -> StoredRun:
        plan = run.record.plan
        if suites and plan.suite not in suites:
            return run
        plan = plan.model_copy(update={"protocol": None})
        return replace(run, record=run.record.model_copy(update={"plan": plan}))

    return [old(run) for run in runs]


def test_what_suites_decide_of_training_parts_runs_and_is_said(tmp_path: Path) -> None:
    """A suite's sequence length is in no variant's name, and was taken for the variant's own."""
    runs = runs_of(tmp_path, [Made("base"), Made("lora_dora"), *either(LONGER)])
    found = of_one(judge([claim(says="better")], runs))
    assert found.outcome == "out of reach"
    told = evidence(found)
    assert "not run: qlora_nf4 (run by a suite with " in told
    assert "training.sequence_length = 2048, not 512" in told
    assert "training.weight_decay = 0.1, not 0.0" in told
    assert all("base" in ground.arms for ground in make_grounds(runs)), "it is not trained"


def test_rows_of_grounds_that_differ_by_their_suites_alone_are_told_apart(tmp_path: Path) -> None:
    made = [*either(()), *either(LONGER, LONGER), Made("base")]
    judged = judge([claim(says="better")], runs_of(tmp_path, made))
    texts = sorted((row[0].text for row in verdicts(judged).rows), key=len)
    assert "run by a suite" not in texts[0]
    assert "run by a suite with training.sequence_length = " in texts[1]
    sizes = sorted((size_here(one, main_judged(judged)) for one in judged), key=len)
    assert "run by a suite with" in sizes[1]
    assert "run by" not in sizes[0]


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (LONGER, LONGER),
        (("training.sequence_length=2048", "training.packing=true"), ()),
        (
            ("validation.every=4", "corpus.validation_fraction=0.1"),
            ("corpus.validation_fraction=0.1",),
        ),
        (("score.held_out_tokens=64",), ()),
    ],
)
def test_what_variants_name_or_scores_ask_parts_no_runs(
    tmp_path: Path, own: tuple[str, ...], other: tuple[str, ...]
) -> None:
    runs = runs_of(tmp_path, either(own, other))
    assert len(make_grounds(runs)) == 1
    assert len(make_grounds(aged(runs))) == 1, "records of an older harness say as much"


@pytest.mark.parametrize(
    "setting",
    [
        "suite.precision.compute=float32",
        "order=rows",
        "order_seed=3",
        "suite.training.packing=true",
    ],
)
def test_every_setting_of_a_suite_that_training_reads_parts_runs(
    tmp_path: Path, setting: str
) -> None:
    runs = runs_of(tmp_path, either((setting,)))
    assert len(make_grounds(runs)) == 2
    assert len(make_grounds(aged(runs))) == 2, "it was typed, so older records say it too"


def test_kept_weights_and_patience_part_runs(tmp_path: Path) -> None:
    shared = ("corpus.validation_fraction=0.1", "validation.every=4")
    runs = runs_of(tmp_path, either((*shared, "validation.keep=best"), shared))
    assert len(make_grounds(runs)) == 2


def test_runs_of_an_older_harness_stand_with_those_of_the_same_suite(tmp_path: Path) -> None:
    """It is not known what its file said then; what is known of the same name is taken for it."""
    runs = runs_of(tmp_path, [*either(("score.generations=3",)), *either(LONGER, LONGER)])
    suites = sorted({run.record.plan.suite for run in runs})
    assert len(suites) == 3
    for some in ((), *((name,) for name in suites)):
        assert [len(ground.arms) for ground in make_grounds(aged(runs, *some))] == [2, 2], some
    said = [
        [str(note) for note in notes(judge([claim(says="better")], found))]
        for found in (runs, aged(runs), aged(runs, "quick"))
    ]
    assert [len(one) for one in said] == [2, 2, 3], "all known, none known, some"
    assert "Not all records say what suite quick gave to every variant" in said[2][-1]


def test_other_weights_under_one_name_are_on_grounds_of_their_own(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, either(()))

    def drawn(run: StoredRun, seed: int) -> StoredRun:
        plan = run.record.plan
        source = RandomSource(kind="random", seed=seed, tokenizer=plan.model.name)
        model = plan.model.model_copy(update={"source": source})
        plan = plan.model_copy(update={"model": model})
        return replace(run, record=run.record.model_copy(update={"plan": plan}))

    apart = [drawn(run, int(run.record.plan.variant == "qlora_nf4")) for run in runs]
    found = of_one(judge([claim(says="better")], apart))
    assert "not run: qlora_nf4 (run on other weights under the same name)" in evidence(found)


PAIRS = {
    "variant": ["qlora_nf4_dq", "qlora_nf4", "lora_bf16"],
    "against": ["base_nf4_dq", "base_nf4", "base"],
}


def test_lists_of_equal_length_are_compared_pair_by_pair(tmp_path: Path) -> None:
    """Fine-tuning on NF4 set against the 16-bit base would count the cost of NF4 as its own."""
    made = [Made("base")]
    for name, ratio in (("lora_bf16", 0.0), ("qlora_nf4_dq", 0.06)):
        made += [Made(name, seed=n, log_ratio=ratio, seed_noise=0.0005) for n in range(3)]
    (ground,) = make_grounds(runs_of(tmp_path, made))
    check = claim(says="equal", margin=0.02, **PAIRS).checks[0]
    assert isinstance(check, ScoreCheck)
    sides = sides_of(check, ground)
    assert isinstance(sides, Sides)
    assert (sides.own.variant, sides.other.variant) == ("lora_bf16", "base")
    assert measure(check, ground).outcome == "reproduced"


def test_a_pair_of_which_one_side_was_not_run_names_that_side(tmp_path: Path) -> None:
    made = [Made("base"), *(Made("qlora_nf4_dq", seed=n) for n in range(3))]
    found = of_one(judge([claim(says="equal", **PAIRS)], runs_of(tmp_path, made)))
    assert found.outcome == "out of reach"
    assert "not run: base_nf4_dq" in evidence(found)


def test_what_was_not_run_is_out_of_reach_with_its_name(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, seven())
    asked = [
        claim(says="better", variant=["lora_dora"]),
        claim(says="better", score="mmlu acc"),
        claim(says="better", conditions=["budget.batch_size >= 64"]),
        claim(says="better", conditions=["budget.batch_size >= 64"], unmet="too small a batch"),
    ]
    reasons = ("lora_dora", "mmlu acc", "budget.batch_size", "too small a batch")
    for one, reason in zip(asked, reasons, strict=True):
        found = of_one(judge([one], runs))
        assert (found.outcome, found.ground) == ("out of reach", None)
        assert reason in evidence(found)


@pytest.mark.parametrize(
    ("check", "seeds", "reason"),
    [
        ({"says": "better", "score": "mmlu acc"}, 3, "mmlu acc was not taken by qlora_nf4 and"),
        (
            {"kind": "cost", "cost": "energy", "ratio": [0.5, 2]},
            3,
            "runs of qlora_nf4 and lora_bf16",
        ),
        ({"kind": "bits", "difference": [0, 1]}, 3, "no quantized parameters: lora_bf16"),
        ({"kind": "rate", "ratio": [0.5, 2]}, 3, "learning rates for qlora_nf4 and lora_bf16"),
    ],
)
def test_what_was_run_and_cannot_be_compared_names_the_side_that_lacks_something(
    tmp_path: Path, check: dict[str, object], seeds: int, reason: str
) -> None:
    runs = runs_of(tmp_path, seven(seeds=seeds))
    found = of_one(judge([claim(**check)], runs))
    assert found.outcome == "out of reach"
    assert reason in evidence(found)


def test_a_side_that_was_tried_only_is_said_to_be(tmp_path: Path) -> None:
    """Its trials are runs: what is missing is a run that is scored on the held-out split."""
    (ground,) = make_grounds(runs_of(tmp_path, seven()))
    tried = VariantRuns("qlora_nf4", (), {0.0002: 2.5, 0.0005: 2.4})
    ground = replace(ground, arms={**ground.arms, "qlora_nf4": tried})
    (check,) = claim(says="better").checks
    found = measure(check, ground)
    assert found.text == "not run: qlora_nf4 (run on the validation split only)"


def test_a_side_that_was_run_at_another_rate_only_is_said_to_be(tmp_path: Path) -> None:
    made = [Made("lora_bf16"), Made("qlora_nf4", ("training.learning_rate=0.0003",))]
    found = of_one(judge([claim(says="better")], runs_of(tmp_path, made)))
    assert evidence(found) == "not run: qlora_nf4 (run at another learning rate only)"


def test_sides_that_were_not_run_at_their_best_rates_are_named(tmp_path: Path) -> None:
    made = [Made("lora_bf16"), Made("qlora_nf4")]
    found = of_one(judge([claim(says="better", rates="best")], runs_of(tmp_path, made)))
    assert evidence(found) == "not run at its best learning rate: qlora_nf4, lora_bf16"


def test_equal_parameters_are_looked_up_in_both_runs(tmp_path: Path) -> None:
    """The rank-1 adapter of a name is not by itself as small as what it is compared with."""
    runs = runs_of(tmp_path, seven())
    trained = {"lora_bf16": 305_280, "qlora_nf4": 38_400}
    runs = [with_parameters(run, trained.get(run.record.plan.variant, 1_000_000)) for run in runs]
    asked = claim(says="worse")
    assert of_one(judge([asked], runs)).outcome == "reproduced"
    for bounds, outcome in (([0.1, 2.0], "reproduced"), ([0.5, 2.0], "out of reach")):
        found = of_one(judge([claim(says="worse", parameters=bounds)], runs))
        assert found.outcome == outcome
    assert "trained parameters 38,400 against 305,280" in evidence(found)


def test_what_was_lost_is_compared_only_where_something_was(tmp_path: Path) -> None:
    learned = {"lora_bf16": -0.12, "qlora_nf4": -0.02}
    for name, ratios in (("both", learned), ("one", learned | {"qlora_nf4": 0.3})):
        made = [
            Made(variant, seed=seed, log_ratio=ratio)
            for variant, ratio in ratios.items()
            for seed in range(3)
        ]
        runs = runs_of(tmp_path / name, made)
        found = of_one(judge([claim(says="worse", lost=True)], runs))
        assert (found.outcome == "reproduced") == (name == "one")
        assert ("worse on neither side" in evidence(found)) == (name == "both")


def test_what_is_guessed_on_both_sides_is_not_compared(tmp_path: Path) -> None:
    """Of 28 groups of answers about half are right: surely above 0.2, not surely above 0.5."""
    asked = {"says": "equal", "score": "oasst_choice acc", "margin": 0.5}
    runs = runs_of(tmp_path, seven())
    assert of_one(judge([claim(**asked, chance=0.2)], runs)).outcome == "reproduced"
    found = of_one(judge([claim(**asked, chance=0.5)], runs))
    assert found.outcome == "out of reach"
    assert "both answer as guessing does (" in evidence(found)
    assert "by chance 50.00 %" in evidence(found)


def with_parameters(run: StoredRun, trained: int) -> StoredRun:
    """The run with as many trained parameters, where it trains."""
    census = run.record.census
    assert census is not None
    rows = [
        row.model_copy(update={"elements": trained}) if row.trainable else row
        for row in census.rows
    ]
    changed = census.model_copy(update={"rows": tuple(rows)})
    return replace(run, record=run.record.model_copy(update={"census": changed}))


def test_the_verdict_is_for_the_size_that_was_run(tmp_path: Path) -> None:
    found = judge([claim(says="better")], runs_of(tmp_path, seven()))
    assert of_one(found).elsewhere
    text = markdown_page(claims_page(found))
    assert "neither confirms nor refutes the sentence for the sizes it was claimed for" in text
    assert "7 B" in text


def test_double_quantization_saves_its_bits_by_count() -> None:
    """The committed report's records: 4.500 bits against 4.127."""
    runs, _ = read_runs(QUICK)
    found = of_one(judge([load_claim("double_quantization")], runs))
    assert found.outcome == "reproduced"
    assert "+0.373" in evidence(found)


def test_costs_are_ratios_over_seeds(tmp_path: Path) -> None:
    made = [
        Made(
            name, seed=seed, memory=memory * (1 + 0.001 * seed * (name == "qlora_nf4")), device=GPU
        )
        for name, memory in (("lora_bf16", 1.0), ("qlora_nf4", 1.2))
        for seed in range(3)
    ]
    runs = runs_of(tmp_path, made)
    more, less = (
        claim(kind="cost", cost="memory", ratio=ratio) for ratio in ([1.0, 10.0], [0.1, 1.0])
    )
    assert of_one(judge([more], runs)).outcome == "reproduced"
    assert of_one(judge([less], runs)).outcome == "contradicted"


def test_costs_of_processors_with_other_cores_are_not_compared(tmp_path: Path) -> None:
    """They have one name, and so stand on one ground; what is stored can be compared."""
    many = CPU.model_copy(update={"threads": 16})
    made = [
        Made(name, seed=seed, device=device)
        for name, device in (("lora_bf16", CPU), ("qlora_nf4", many))
        for seed in range(3)
    ]
    runs = runs_of(tmp_path, made)
    time = of_one(judge([claim(kind="cost", cost="time", ratio=[0.1, 1.0])], runs))
    assert time.outcome == "out of reach"
    assert "Example CPU with 16 threads and Example CPU with 2 threads" in evidence(time)
    stored = of_one(judge([claim(kind="cost", cost="weights", ratio=[0.1, 1.0])], runs))
    assert stored.outcome == "reproduced"


def test_a_resumed_run_tells_no_cost(tmp_path: Path) -> None:
    made = [
        Made(name, seed=seed, memory=memory * (1 + 0.001 * seed), device=GPU)
        for name, memory in (("lora_bf16", 1.0), ("qlora_nf4", 1.2))
        for seed in range(3)
    ]
    runs = runs_of(tmp_path, made)
    rest = {"resumed": 1}
    runs = [
        replace(run, record=run.record.model_copy(update=rest if run.record.plan.seed == 0 else {}))
        for run in runs
    ]
    found = of_one(judge([claim(kind="cost", cost="memory", ratio=[1.0, 10.0])], runs))
    assert "memory × 1.2" in evidence(found)
    assert "3 seeds" not in evidence(found)


def test_rows_of_grounds_that_differ_by_device_alone_are_told_apart(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, [*seven(), *seven(device=GPU)])
    judged = judge([claim(says="worse")], runs)
    texts = [row[0].text for row in verdicts(judged).rows]
    main = main_judged(judged)
    assert main is main_judged(reversed(judged)), "a page's parts take claims in several orders"
    sizes = [size_here(one, main) for one in judged]
    assert main is not None
    assert f"on {main.device}" in ground_here(judged)
    (other,) = {CPU.name, GPU.name} - {main.device}
    for told in (texts, sizes):
        first, second = sorted(told, key=len)
        assert f"on {other}" in second, told
        assert other not in first


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({"settings": ("corpus.policy=all_paths",)}, r"corpus\.policy=(all_paths|best_path)\b"),
        (
            {"settings": (f"corpus.source=hub:Example/others@{'0' * 40}",)},
            r"corpus (others|sample)\b",
        ),
        ({"corpus_sha256": "f" * 64}, r"another sample\b"),
    ],
)
def test_rows_of_grounds_that_differ_by_corpus_alone_are_told_apart(
    tmp_path: Path, others: dict[str, Any], told: str
) -> None:
    """By its name where that differs; else by its settings, or as other data of that name."""
    runs = runs_of(tmp_path, [*pair(), *pair(**others)])
    judged = judge([claim(says="worse")], runs)
    texts = [row[0].text for row in verdicts(judged).rows]
    sizes = [size_here(one, main_judged(judged)) for one in judged]
    for words in (texts, sizes):
        first, second = sorted(words, key=len)
        assert re.search(told, second), words
        assert "corpus" not in first
        assert "another" not in first


def pair(**changes: Any) -> list[Made]:
    """Runs of the two variants of the claim."""
    names = ("lora_bf16", "qlora_nf4")
    return [Made(name, seed=seed, **changes) for name in names for seed in range(3)]


def pair_elsewhere(root: Path) -> tuple[Claim, list[StoredRun]]:
    """A claim of a variant that was run on a GPU, and more variants on a CPU without it."""
    few = [made for made in seven(device=GPU) if made.variant not in ("qlora_fp4", "base_nf4_dq")]
    dora = [Made("lora_dora", seed=seed, device=GPU) for seed in range(3)]
    asked = claim(says="equal", variant=["lora_dora"], against=["lora_bf16"])
    return asked, runs_of(root, [*seven(), *few, *dora])


def test_the_main_ground_is_one_on_which_claims_are_judged(tmp_path: Path) -> None:
    """Also where more variants were run elsewhere, of which no claim speaks."""
    asked, runs = pair_elsewhere(tmp_path)
    main, largest = main_judged(judge([asked], runs)), main_ground(make_grounds(runs))
    assert main is not None
    assert largest is not None
    assert (main.device, largest.device) == (GPU.name, CPU.name)


@pytest.mark.slow
def test_all_of_a_page_is_about_its_main_ground(tmp_path: Path) -> None:
    asked, runs = pair_elsewhere(tmp_path / "runs")
    text = publish_findings([asked], runs, tmp_path / "out").read_text()
    assert f"on {GPU.name}" in text.partition("Here: ")[2].partition("\n")[0]
    figures = "".join(path.read_text() for path in (tmp_path / "out" / "figures").glob("*.svg"))
    assert "lora_dora" in figures
    assert "qlora_fp4" not in figures


def test_a_ground_that_lacks_a_part_adds_nothing(tmp_path: Path) -> None:
    """The untrained bases belong to every ground, and their bits alone are no verdict there."""
    asked = load_claim("double_quantization")
    names = ("qlora_nf4", "qlora_nf4_dq", "base_nf4", "base_nf4_dq")
    made = [Made(name, seed=seed) for name in names for seed in range(3)]
    other = [Made("lora_bf16", ("budget.steps=3",), seed=seed) for seed in range(3)]
    found = judge([asked], runs_of(tmp_path, [*made, *other]))
    assert len({one.ground.title for one in found if one.ground}) == len(found) == 1


def check_two_looks(check: AnyCheck, ground: Ground) -> None:
    """A study that tunes looked at two seeds and at three, and pays for both."""
    once, often = (measure(check, replace(ground, tuned=tuned)) for tuned in (False, True))
    assert once.errors is not None
    assert often.errors is not None
    assert once.errors.fits > 0
    assert often.errors.fits == pytest.approx(2 * once.errors.fits)


@pytest.mark.parametrize(
    "check",
    [
        {"says": "worse"},
        {"kind": "cost", "cost": "memory", "ratio": [1.0, 1.3]},
        {"kind": "speed", "ratio": [0.0001, 10000.0]},
    ],
)
def test_every_noisy_comparison_pays_for_the_looks(
    tmp_path: Path, check: dict[str, object]
) -> None:
    made = [
        Made(
            name,
            seed=seed,
            log_ratio=more,
            seed_noise=0.02,
            memory=1 + more + 0.05 * (seed % 2) * more * 10,
            device=GPU,
        )
        for name, more in (("lora_bf16", 0.0), ("qlora_nf4", 0.1))
        for seed in range(3)
    ]
    (ground,) = make_grounds(runs_of(tmp_path, made))
    (one,) = claim(**check).checks
    check_two_looks(one, ground)


def with_form(run: StoredRun, form: str) -> StoredRun:
    """The run, scored in another form too, where every seed is worse by another amount."""
    key = ScoreKey("held_out", "perplexity", "training")
    score = key.find(run.record)
    assert score is not None
    assert score.items is not None
    table = pq.read_table(run.folder.path / score.items)
    more = 0.02 + 0.005 * run.record.plan.seed
    place = table.schema.get_field_index("numerator")
    worse = table["numerator"].to_numpy() + more * table["denominator"].to_numpy()
    name = f"items/held_out-perplexity-after-{form}.parquet"
    pq.write_table(table.set_column(place, "numerator", [worse]), run.folder.path / name)
    other = score.model_copy(
        update={"precision": form, "items": name, "items_sha256": None,
                "value": score.value * math.exp(more), "headline": False}
    )  # fmt: skip
    record = run.record.model_copy(update={"scores": (*run.record.scores, other)})
    return replace(run, record=record)


def test_a_comparison_of_forms_pays_for_the_looks(tmp_path: Path) -> None:
    made = [Made("qlora_nf4", seed=seed) for seed in range(3)]
    runs = [with_form(run, "merged") for run in runs_of(tmp_path, made)]
    (ground,) = make_grounds(runs)
    data = claim(says="worse").model_dump(mode="json")
    check = {"kind": "form", "variant": ["qlora_nf4"], "form": "merged", "says": "worse"}
    (one,) = parse(Claim, data | {"checks": [check]}, where="made_up.toml").checks
    check_two_looks(one, ground)


def test_a_form_may_be_scored_in_runs_of_their_own(tmp_path: Path) -> None:
    """They have more seeds than the others, and stand for the variant in nothing else."""
    made = [Made("qlora_nf4", seed=seed) for seed in range(3)]
    more = [Made("qlora_nf4", ("score.stride=256",), seed=seed) for seed in range(4)]
    runs = runs_of(tmp_path, [*made, *more])
    runs = [with_form(r, "merged") if r.record.plan.score.stride == 256 else r for r in runs]
    runs += runs_of(tmp_path / "others", seven())
    (ground,) = make_grounds(runs)
    arm = ground.arms["qlora_nf4"]
    assert len(arm.rows) == 2
    assert arm.row is not None
    assert arm.row.plan.score.stride != 256, "it is scored as the others are"
    data = claim(says="worse").model_dump(mode="json")
    check = {"kind": "form", "variant": ["qlora_nf4"], "form": "merged", "says": "worse"}
    (one,) = parse(Claim, data | {"checks": [check]}, where="made_up.toml").checks
    found = measure(one, ground)
    assert (found.outcome, "4 seeds" in found.text) == ("reproduced", True), found


def test_what_can_happen_is_not_refuted_where_it_does_not(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, seven())
    can = claim(says="better").model_copy(update={"can": True})
    found = of_one(judge([can], runs))
    assert found.outcome == "undecided"
    assert "it does not here" in evidence(found)


def test_rates_are_those_of_a_studys_trials_and_scores_those_at_the_best_rate(
    tmp_path: Path,
) -> None:
    world = World(worse={"full_finetune": 0.05}, rates={"full_finetune": 5e-5})
    bench = Bench.of(tmp_path, world, variants=["lora_bf16", "full_finetune"])
    bench.finish()
    runs, _ = read_runs(tmp_path / "runs")
    rate = {"kind": "rate", "variant": ["lora_bf16"], "against": ["full_finetune"]}
    found = of_one(judge([claim(**rate, ratio=[5.0, 20.0])], runs))
    assert found.outcome == "reproduced"
    assert "by parabolas through three rates; accepted: 5 to 20" in evidence(found)
    assert of_one(judge([claim(**rate, ratio=[200.0, 400.0])], runs)).outcome == "contradicted"
    assert of_one(judge([claim(**rate, ratio=[11.0, 20.0])], runs)).outcome == "undecided"
    better = claim(says="better", variant=["lora_bf16"], against=["full_finetune"])
    found = of_one(judge([better], runs))
    assert found.outcome == "reproduced"
    assert "at best rates" in evidence(found)
    assert "at default rates" in evidence(found), "the untuned difference stands beside it"
    assert found.ground is not None
    rows = [row for arm in found.ground.arms.values() for row in arm.rows]
    assert found.ground.looks(*rows) > 1, "a study looks more than once, and pays for it"


def test_the_noise_of_other_variants_does_not_blur_two_best_rates(tmp_path: Path) -> None:
    """One variant may diverge at its default rate, and another seed then changes it a lot."""
    world = World(worse={"full_finetune": 0.05}, rates={"full_finetune": 5e-5})
    bench = Bench.of(tmp_path, world, variants=["lora_bf16", "full_finetune", "prefix_tuning"])
    bench.finish()
    runs, _ = read_runs(tmp_path / "runs")
    wild = [diverged(run) if "prefix" in run.record.plan.variant else run for run in runs]
    rate = {"kind": "rate", "variant": ["lora_bf16"], "against": ["full_finetune"]}
    told = evidence(of_one(judge([claim(**rate, ratio=[5.0, 20.0])], wild)))
    assert told == evidence(of_one(judge([claim(**rate, ratio=[5.0, 20.0])], runs)))


def diverged(run: StoredRun) -> StoredRun:
    """The run with a loss that depends on its seed more than on anything else."""
    more = 4.0 ** (run.record.plan.seed % 5)
    scores = tuple(s.model_copy(update={"value": s.value * more}) for s in run.record.scores)
    return replace(run, record=run.record.model_copy(update={"scores": scores}))


def test_where_rates_were_tuned_a_shared_default_settles_nothing(tmp_path: Path) -> None:
    """An interrupted study has some variants at their best rates and others not yet."""
    world = World(worse={"full_finetune": 0.05}, rates={"full_finetune": 5e-5})
    bench = Bench.of(tmp_path, world, variants=["lora_bf16", "full_finetune"])
    bench.finish()
    runs, _ = read_runs(tmp_path / "runs")
    missing = [
        run
        for run in runs
        if not (
            run.record.plan.variant.startswith("lora_bf16+")
            and run.record.plan.score.split == "held_out"
        )
    ]
    assert len(missing) < len(runs)
    better = claim(says="better", variant=["lora_bf16"], against=["full_finetune"])
    assert of_one(judge([better], runs)).outcome == "reproduced"
    found = of_one(judge([better], missing))
    assert found.outcome == "undecided"
    assert "held-out runs of lora_bf16 at " in evidence(found)
    at_default = claim(
        says="better", variant=["lora_bf16"], against=["full_finetune"], rates="default"
    )
    assert of_one(judge([at_default], missing)).outcome != "undecided"


def test_a_best_rate_at_the_edge_settles_nothing(tmp_path: Path) -> None:
    world = World(worse={"full_finetune": 0.05}, rates={"full_finetune": 5e-5})
    bench = Bench.of(tmp_path, world, variants=["lora_bf16", "full_finetune"])
    agenda = bench.finish()
    edge = max(trial.rate for trial in agenda.searches["full_finetune"].trials) / 2
    runs, _ = read_runs(tmp_path / "runs")
    best = agenda.searches["full_finetune"].best
    assert best is not None
    assert best < edge
    cut = [
        run
        for run in runs
        if run.record.plan.score.split == "held_out"
        or run.record.plan.method != "full"
        or run.record.plan.training.learning_rate <= best
    ]
    better = claim(says="better", variant=["lora_bf16"], against=["full_finetune"])
    found = of_one(judge([better], cut))
    assert found.outcome == "undecided"
    assert "rates beyond the edge for full_finetune" in evidence(found)
    assert "at best rates" in evidence(found)
    two = sorted(run.record.plan.training.learning_rate for run in cut if is_trial_of_full(run))[
        -2:
    ]
    cut = [
        run
        for run in cut
        if not is_trial_of_full(run) or run.record.plan.training.learning_rate in two
    ]
    told = evidence(of_one(judge([better], cut)))
    assert "at the best rates tried (not tuned: full_finetune at 2 rates)" in told


def is_trial_of_full(run: StoredRun) -> bool:
    plan = run.record.plan
    return plan.method == "full" and plan.score.split == "validation"


LONG = {"training.schedule": "linear", "training.warmup_steps": 1, "training.max_grad_norm": 0.5}


@pytest.mark.parametrize("more", [{}, {"adapter.init_lora_weights": "gaussian", **LONG}])
def test_a_tuned_arm_keeps_what_else_was_set(tmp_path: Path, more: dict[str, object]) -> None:
    """Settings whose names come after the learning rate's, also where a digest stands for them."""
    settings = {"training.weight_decay": 0.1, **more}
    variants = ["lora_bf16", {"variant": "lora_bf16", "settings": settings}]
    bench = Bench.of(tmp_path, World(), variants=variants)
    agenda = bench.finish()
    runs, _ = read_runs(tmp_path / "runs")
    (ground,) = make_grounds(runs)
    assert set(ground.arms) == {arm.label for arm in bench.comparison.arms}
    names = {run.record.plan.variant for run in runs}
    assert any(len(name) == LONGEST_NAME for name in names) == bool(more), names
    for arm in bench.comparison.arms:
        found = ground.arms[arm.label]
        assert found.best is not None
        assert found.best.plan.training.weight_decay == arm.plan.training.weight_decay
        trials = agenda.searches[arm.label].trials
        assert found.rates == pytest.approx({trial.rate: trial.loss for trial in trials})


def test_findings_stand_beside_a_published_study_and_are_made_again_with_it(tmp_path: Path) -> None:
    world = World(worse={"qlora_nf4": 0.05, "qlora_nf4_dq": 0.05})
    variants = ["lora_bf16", "qlora_nf4", "qlora_nf4_dq"]
    bench = Bench.of(tmp_path / "there", world, variants=variants)
    folder = tmp_path / "reports" / "made_up"
    publish_study(bench.finish(), bench.steering, folder)
    runs, _ = read_runs(folder)
    path = publish_findings([load_claim(name) for name in claim_names()], runs, folder)
    assert rebuild.differences(folder) == []
    page = path.read_text()
    assert "(figures/findings-rates.png)" in page
    assert "Keep the base in 16 bits where it fits" in page, "advice follows from a verdict"
    path.write_text(path.read_text().replace("out of reach", "reproduced"))
    assert rebuild.differences(folder) == [str(path)]
    more = runs_of(tmp_path / "more", [Made("qlora_fp4"), Made("lora_rs", status="interrupted")])
    publish_findings([], [*runs, *more], folder)
    assert len(read_runs(folder)[0]) == len(runs) + 1, "a run that ended joins the study's"
    assert rebuild.differences(folder) == []


def test_speed_is_read_off_training_losses_where_none_was_validated(tmp_path: Path) -> None:
    """Their batches differ so much that three seeds of short runs show nothing."""
    found = of_one(judge([claim(kind="speed", ratio=[1.5, 3.0])], runs_of(tmp_path, seven())))
    assert found.outcome == "undecided"
    assert "speed by training loss × " in evidence(found)


def validated(run: StoredRun, losses: Sequence[float]) -> StoredRun:
    """The run with a validation before its first step and after every tenth."""
    points = [
        ValidationPoint(step=10 * place, tokens=100 * place, loss=loss, seconds=1.0)
        for place, loss in enumerate(losses)
    ]
    result = ValidationResult(points=tuple(points), kept_step=30, stopped="budget")
    training = run.record.training
    assert training is not None
    changed = training.model_copy(update={"validation": result})
    return replace(run, record=run.record.model_copy(update={"training": changed}))


def test_speed_is_read_off_validation_losses_where_both_have_them(tmp_path: Path) -> None:
    """One is at 1.6 after 30 steps, the other half way between its tenth and its twentieth."""
    curves = {"lora_bf16": [2.0, 1.9, 1.7, 1.6], "qlora_nf4": [2.0, 1.7, 1.5, 1.5]}
    split = "corpus.validation_fraction=0.2"
    often = (split, "validation.every=10")
    made = [Made(name, often, seed=seed) for name in curves for seed in range(3)]
    plain = [Made("lora_bf16", (split,), seed=seed) for seed in range(4)]
    runs = [
        validated(run, curves[run.record.plan.variant]) if run.record.plan.validation.every else run
        for run in runs_of(tmp_path, [*made, *plain])
    ]
    found = of_one(judge([claim(kind="speed", ratio=[1.9, 2.1])], runs))
    assert found.outcome == "reproduced"
    assert "speed by validation loss × 2" in evidence(found)
    slower = of_one(judge([claim(kind="speed", ratio=[2.5, 4.0])], runs))
    assert slower.outcome == "contradicted"


@pytest.mark.parametrize("losses", [[2.0, 1.7, 1.5], [2.0, 1.6, 1.5, 1.55], [1.9, 1.9, 2.0]])
def test_a_variant_is_as_fast_as_itself(losses: list[float]) -> None:
    """Also where its loss rises again before its end."""
    curve = Curve(10.0 * np.arange(len(losses)), np.array(losses), validated=True)
    assert times_as_fast(curve, curve) == 1.0


def test_speed_is_that_to_a_loss_to_which_both_come() -> None:
    """One that never comes as low as the other ends is compared at its own lowest."""
    steps = 10.0 * np.arange(4)
    slow = Curve(steps, np.array([2.0, 1.9, 1.8, 1.7]), validated=True)
    fast = Curve(steps, np.array([2.0, 1.7, 1.4, 1.3]), validated=True)
    assert times_as_fast(fast, slow) == pytest.approx(3.0)
    assert times_as_fast(slow, fast) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("says", "truth", "wrong"),
    [
        ("better", 0.0, "reproduced"),
        ("better", -0.01, "contradicted"),
        ("equal", 0.01, "reproduced"),
    ],
)
def test_errors_are_shared_between_all_claims(says: str, truth: float, wrong: str) -> None:
    """Of many sentences where one verdict is false, hardly a table has it anywhere."""
    draws, noise = np.random.default_rng(3), Noise(1e-6, 200.0)
    tables = 0
    for _ in range(200):
        found = []
        for middle in truth + 0.001 * draws.standard_normal(20):
            errors = lean(around(float(middle), noise), regions(says, 0.01))
            found.append(Leaning(errors.verdict(), "", errors=errors))
        tables += wrong in corrected(found)
    assert tables / 200 <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_a_gain_that_may_be_none_and_is_below_the_margin_refutes_as_no_gain_does() -> None:
    """Alone the first would be reproduced; both exclude a gain of the margin."""
    found = []
    for middle in (-0.0008, -0.0004):
        errors = lean(around(middle, Noise(9e-8, 40.0)), regions("better", 0.01))
        found.append(Leaning(errors.verdict(), "", errors=errors))
    assert [one.outcome for one in found] == ["reproduced", "contradicted"]
    assert corrected(found * 10) == ["contradicted"] * 20


def test_better_by_less_than_the_margin_is_still_better() -> None:
    errors = lean(around(-0.002, Noise(1e-8, 100.0)), regions("better", 0.01))
    assert corrected([Leaning(errors.verdict(), "", errors=errors)]) == ["reproduced"]


def test_published_findings_are_what_their_records_give(tmp_path: Path) -> None:
    runs = runs_of(tmp_path / "runs", seven())
    claims = [load_claim(name) for name in claim_names()]
    path = publish_findings(claims, runs, tmp_path / "out")
    assert (tmp_path / "out" / "records").is_dir()
    text = path.read_text()
    assert write_findings(tmp_path / "out", tmp_path / "again").read_text() == text
    assert "Claims about fine-tuning, judged from these runs" in text
    assert "NF4 loses less quality than FP4" in text


def test_a_published_failure_gives_way_to_a_later_success(tmp_path: Path) -> None:
    """And to a later failure; never the other way round."""
    folder = tmp_path / "out"

    def held(status: str, hour: str) -> RunRecord:
        (run,) = runs_of(tmp_path / hour, [Made("lora_bf16", status=status)])
        at = run.record.model_copy(update={"started_at": f"2026-01-01T{hour}:00:00Z"})
        before, _ = read_runs(folder)
        publish_findings([], [replace(run, record=at), *before], folder)
        (found,) = read_runs(folder)[0]
        return found.record

    for status, hour, kept in (
        ("oom", "02", ("oom", "02")),
        ("failed", "01", ("oom", "02")),
        ("failed", "03", ("failed", "03")),
        ("ok", "04", ("ok", "04")),
        ("failed", "05", ("ok", "04")),
        ("ok", "06", ("ok", "04")),
    ):
        found = held(status, hour)
        assert (found.status, found.started_at[11:13]) == kept, (status, hour)


def test_the_page_says_what_it_rests_on_and_what_it_cost(tmp_path: Path) -> None:
    made = [
        Made(name, seed=seed, log_ratio=ratio, device=GPU)
        for name, ratio in (("lora_bf16", 0.0), ("qlora_nf4_dq", 0.1))
        for seed in range(4)
    ]
    folder = tmp_path / "reports" / "own"
    folder.mkdir(parents=True)
    (folder / "about.md").write_text(
        "Links between messages\nare those of the data.\n\nNo `more_of` it.\n"
    )
    (folder / "spent.json").write_text('{"gpus": 2, "kwh": 0.35}')
    claims = [load_claim("qlora_reaches_lora"), load_claim("nf4_beats_fp4")]
    runs = runs_of(tmp_path / "runs", made)
    text = publish_findings(claims, runs, folder).read_text()
    wanted = (
        "\nLinks between messages are those of the data.\n",
        "\nNo `more_of` it.\n",
        "**Seeds.** 4 of every trained variant and rate.",
        "2 variants compared with themselves at other seeds",
        "8 runs (0 of them trials; none failed)",
        "at once on 2 × ",
        "0.35 kWh by the GPUs' own meters.",
    )
    for words in wanted:
        assert words in text, words
    (folder / "spent.json").unlink()
    assert "kWh by" not in write_findings(folder, tmp_path / "again", claims).read_text()


def test_readme_s_part_is_what_the_records_give(tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "own"
    publish_findings([], runs_of(tmp_path / "runs", seven()), folder)
    brief = findings_brief(folder)
    assert "| NF4 loses less quality than FP4 | **reproduced** |" in brief
    assert "neither confirms nor refutes" in brief.partition("| claim |")[0]
    assert "(reports/own/FINDINGS.md)" in brief
    assert "undecided |" not in brief, "only what is settled"
    readme = tmp_path / "README.md"
    start = "<!-- findings: made by `harness claims reports/own --markdown` -->"
    readme.write_text(f"# Project\n\n{start}\n{brief}<!-- /findings -->\n")
    assert rebuild.brief_differs(readme, tmp_path / "reports") == []
    readme.write_text(readme.read_text().replace("reproduced", "contradicted"))
    assert rebuild.brief_differs(readme, tmp_path / "reports") == [f"{readme}: own"]


def test_a_claim_of_many_parts_shows_one_that_decides(tmp_path: Path) -> None:
    made = [
        Made(name, seed=seed, log_ratio=ratio)
        for name, ratio in (("lora_bf16", 0.0), ("lora_rs", 0.0), ("lora_dora", 0.1))
        for seed in range(3)
    ]
    parts = [
        {"kind": "score", "variant": [name], "against": ["lora_bf16"], "says": "equal"}
        for name in ("lora_rs", "lora_dora", "miss")
    ]
    data = claim(says="equal").model_dump(mode="json") | {"checks": parts}
    asked = parse(Claim, data, where="made_up.toml")
    found = of_one(judge([asked], runs_of(tmp_path, made)))
    assert found.outcome == "contradicted"
    assert measured(found).startswith("lora_dora: +10")
    assert measured(found).endswith("(1 of 3)")


def test_findings_can_rest_on_other_reports_beside(tmp_path: Path) -> None:
    runs = runs_of(tmp_path / "runs", seven())
    half = [run for run in runs if run.record.plan.quantization.type == "none"]
    rest = [run for run in runs if run.record.plan.quantization.type != "none"]
    claims = [load_claim("nf4_beats_fp4"), load_claim("qlora_reaches_lora")]
    publish_findings(claims, rest, tmp_path / "other")
    alone = publish_findings(claims, half, tmp_path / "own").read_text()
    path = publish_findings(claims, half, tmp_path / "own", [tmp_path / "other", tmp_path / "own"])
    assert "2 claims: 2 out of reach." in alone
    assert "2 out of reach" not in path.read_text()
    again = write_findings(tmp_path / "own", tmp_path / "scratch" / "own", claims)
    assert again.read_text() == path.read_text()
    assert not is_beside(tmp_path / "runs", tmp_path / "own")


def test_the_training_s_conversations_are_those_in_its_rows(tmp_path: Path) -> None:
    """What is too long for a row is dropped after the split, which alone counts it."""
    runs = runs_of(tmp_path, seven())
    rows = [
        FunnelRow(
            step=step, trees=trees, messages=None, conversations=left, tokens=None, removed=cut
        )
        for step, trees, left, cut in (
            ("held out", 80, 300, ""),
            ("training", 81, 160, ""),
            ("sequence length", None, 154, "conversations dropped: 6"),
        )
    ]
    changed = []
    for run in runs:
        assert run.record.corpus is not None
        corpus = run.record.corpus.model_copy(update={"funnel": (*run.record.corpus.funnel, *rows)})
        changed.append(replace(run, record=run.record.model_copy(update={"corpus": corpus})))
    (ground,) = make_grounds(changed)
    text = str(about_section(ground, changed, MachineUse()))
    assert "154 conversations of 81 trees to train on" in text
    assert "28 of 80 trees held out" in text
    assert "To fit the rows: conversations dropped: 6." in text
