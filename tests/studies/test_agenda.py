"""What comes next follows from the study's file, its records and the decisions alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InvalidFile, UnknownName
from harness.records.store import RunStore, StoredRun
from harness.records.validation import validation_loss
from harness.report.pairing import KeptItems, ScoreKey
from harness.spec.plan import Plan
from harness.spec.request import Request
from harness.studies.agenda import _read
from harness.studies.answer import answer
from harness.studies.arms import Typed, compare_what, trial_plan, verdict_plan
from harness.studies.page import make_page
from harness.studies.steering import Decision, Steering
from harness.train.path import resolve
from tests.planned import CPU
from tests.report.records import Made, write_run
from tests.store_records import record_of
from tests.studies.stub import Bench, StubExecutor, World, study

WORSE = World(worse={"qlora_nf4": 0.05})


def test_a_study_tunes_on_validation_then_repeats_until_decided(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, WORSE)
    first = bench.agenda()
    trials = [job for job in first.jobs if job.stage == "tune"]
    assert [(job.arm, job.rate) for job in trials][:2] == [
        ("lora_bf16", 2e-4),
        ("qlora_nf4", 2e-4),
    ], "all variants are seen early"
    assert {job.plan.score.split for job in trials} == {"validation"}
    assert {job.plan.seed for job in trials} == {1000}
    last = bench.finish()
    assert last.searches["lora_bf16"].best == 5e-4
    found = last.standings["best"].conclusion("qlora_nf4")
    assert found is not None
    assert found.difference is not None
    assert found.difference.verdict == "worse"
    assert found.seeds < 4, "it stops by itself"
    runs = [plan for plan in bench.executor.ran if plan.score.split == "held_out"]
    assert {plan.seed for plan in runs} == set(range(found.seeds))


def test_every_variant_gets_the_same_search(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, variants=["lora_bf16", "full_finetune"])
    trials = {label: found.missing for label, found in bench.agenda().searches.items()}
    steps = [sorted(job.rate / 2e-4 for job in trials["lora_bf16"])]
    steps.append(sorted(job.rate / 2e-5 for job in trials["full_finetune"]))
    assert steps[0] == pytest.approx(steps[1])
    budgets = {job.plan.budget for found in trials.values() for job in found}
    assert len(budgets) == 1


def test_a_best_rate_at_the_edge_widens_the_grid_and_says_so(tmp_path: Path) -> None:
    world = World(rates={"lora_bf16": 4e-3, "qlora_nf4": 5e-4})
    bench = Bench.of(tmp_path, world, tune={"trials": 3, "widenings": 3})
    found = bench.finish().searches["lora_bf16"]
    assert found.widened == (1.25e-3, 3.13e-3, 7.81e-3)
    assert (found.best, found.edge) == (3.13e-3, "")
    short = Bench.of(tmp_path, world, tune={"trials": 3, "widenings": 1}).finish()
    assert short.searches["lora_bf16"].edge == "high"


def test_halving_gives_all_a_part_of_the_budget_and_the_best_the_whole(tmp_path: Path) -> None:
    tune = {"trials": 8, "rungs": 3, "keep_one_in": 2, "widenings": 0}
    bench = Bench.of(tmp_path, tune=tune)
    bench.finish()
    trials = [plan for plan in bench.executor.ran if plan.score.split == "validation"]
    for variant in ("lora_bf16", "qlora_nf4"):
        own = [p for p in trials if p.variant.partition("+")[0] == variant]
        assert sorted(plan.budget.steps for plan in own) == [7] * 8 + [14] * 4 + [28] * 2


def test_optuna_proposes_the_same_to_a_driver_that_starts_anew(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="an extra")
    world = World(rates={"lora_bf16": 4e-4, "qlora_nf4": 4e-4})
    found = [
        Bench.of(tmp_path / name, world, tune={"trials": 5, "method": "tpe"}).finish().searches
        for name in ("one", "two")
    ]
    assert found[0] == found[1]
    assert [len(one.trials) - len(one.widened) for one in found[0].values()] == [5, 5]
    assert found[0]["lora_bf16"].trials[0].rate == 2e-4, "the default is among them"


def test_a_rate_that_diverges_loses_and_does_not_end_the_study(tmp_path: Path) -> None:
    def fails(plan: Plan) -> str:
        return "diverged" if plan.training.learning_rate >= 5e-4 else ""

    found = Bench.of(tmp_path, World(fails=fails)).finish()
    assert found.searches["lora_bf16"].best == 2e-4
    assert found.spent.failed == 2


def test_choosing_on_held_out_scores_is_refused(tmp_path: Path) -> None:
    """Whoever tries to tune on the held-out split gets an error, not a rate."""
    bench = Bench.of(tmp_path)
    arm = bench.comparison.arms[0]
    verdict = bench.executor.run(verdict_plan(arm, 5e-4, 0))
    with pytest.raises(ValueError, match="scored on the held-out split"):
        validation_loss(verdict)
    trial = trial_plan(arm, 5e-4, 1.0, 1000)
    smuggled = record_of(trial, scores=verdict.scores)
    with pytest.raises(ValueError, match="scored on the held-out split"):
        validation_loss(smuggled)
    with pytest.raises(InvalidFile, match="unknown key"):
        study(tune={"split": "held_out"})


def test_a_plan_is_what_the_command_line_would_make(tmp_path: Path) -> None:
    """So every run of a study can be typed, and its record is found by `run` and `report` too."""
    made = study(
        variants=[
            {"variant": "lora_bf16", "settings": {"adapter.use_dora": True}},
            "full_finetune",
        ],
        reference="full_finetune",
        settings={"score.stride": 256},
    )
    asked = Typed(("budget.batch_size=4",), ("arc_challenge",))
    for arm in compare_what(made, CPU, asked).arms:
        for plan in (
            trial_plan(arm, 5e-4, 0.5, 1000),
            trial_plan(arm, arm.default, 1.0, 1000),
            verdict_plan(arm, arm.default, 2),
            verdict_plan(arm, 1e-3, 1),
        ):
            request = plan.request
            assert request is not None
            typed = Request(
                (request.variant,), request.suite, request.settings, request.tasks, (plan.seed,)
            )
            assert [plan] == resolve(typed, CPU)


def test_the_answer_does_not_depend_on_who_ran_what(tmp_path: Path) -> None:
    """Killed and resumed after every run, by shards, in another order: the records decide."""
    whole = Bench.of(tmp_path / "whole", WORSE)
    expected = whole.finish()
    bits = Bench.of(tmp_path / "bits", WORSE)
    while jobs := bits.agenda().jobs:
        bits.executor.run(jobs[-1].plan)  # a driver that dies after one run, the last first
    found = bits.agenda()
    assert found.standings["best"].following == expected.standings["best"].following
    assert found.spent == expected.spent
    names = [sorted(p.relative_to(b.executor.store.root) for b_, p in [(b, p) for p in
             b.executor.store.root.rglob("record.json")]) for b in (whole, bits)]  # fmt: skip
    assert names[0] == names[1]


def test_the_budget_stops_a_study_and_the_page_says_so(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, WORSE, budget={"runs": 5})
    last = bench.finish()
    assert len(bench.executor.ran) == 5
    assert last.stopped == "the budget of 5 runs is used up"
    assert not Bench.of(tmp_path, WORSE, budget={"runs": 6}).agenda().stopped
    assert Bench.of(tmp_path, WORSE, budget={"hours": 0.01}).agenda().stopped


def test_a_budget_of_hours_is_not_overrun(tmp_path: Path) -> None:
    """Runs take ten seconds here; no round begins more of them than there is time for."""
    bench = Bench.of(tmp_path, WORSE, budget={"hours": 75 / 3600})
    assert len(bench.agenda().jobs) == 2, "one run of each variant while nothing is known"
    last = bench.finish()
    assert len(bench.executor.ran) == 7
    assert "has no room for a run" in last.stopped
    more = Bench.of(tmp_path, WORSE, budget={"hours": 95 / 3600})
    more.finish()
    assert len(more.executor.ran) == 2, "more budget lets it go on"


def test_a_margin_in_points_does_not_move_with_the_runs_that_come_later(tmp_path: Path) -> None:
    """A share of the median over all runs so far let a later run undo an earlier conclusion."""
    key = ScoreKey("oasst_choice", "acc", "training")

    def graded(made: Made, points: float) -> StoredRun:
        write_run(tmp_path, made)
        runs = [one for one in RunStore(tmp_path).scan() if isinstance(one, StoredRun)]
        run = next(one for one in runs if one.record.plan.variant == made.variant)
        scores = [
            s.model_copy(update={"unit": "points", "value": points}) for s in run.record.scores
        ]
        return replace(run, record=run.record.model_copy(update={"scores": tuple(scores)}))

    reference = (graded(Made("lora_bf16"), 40.0),)
    early = {"lora_bf16": reference}
    late = early | {"qlora_nf4": (graded(Made("qlora_nf4"), 70.0),)}
    scales = [_read(runs, key, 0.01, reference, KeptItems())[0] for runs in (early, late)]
    assert [scale.margin for scale in scales if scale is not None] == [0.4, 0.4]


def test_an_untrained_variant_is_run_once_and_not_tuned(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, World(worse={"base": 0.4}), variants=["base", "lora_bf16"])
    last = bench.finish()
    assert [plan.variant for plan in bench.executor.ran].count("base") == 1
    found = last.standings["best"].conclusion("base")
    assert found is not None
    assert found.difference is not None
    assert found.difference.verdict == "worse"


def test_names_patterns_files_and_grids_make_arms(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text('description = "mine"\nquantization = { type = "fp4" }\n')
    made = study(variants=["qlora_nf4_r*", str(own)], grid={"adapter.r": [4, 16]},
                 reference="lora_bf16")  # fmt: skip
    found = compare_what(made, CPU)
    assert found.reference == "lora_bf16", "the reference is added where it is not named"
    assert "mine+adapter.r=16" in found.by_label
    assert "qlora_nf4_r64+adapter.r=4" in found.by_label
    with pytest.raises(UnknownName, match="qlora_nf5"):
        compare_what(study(variants=["qlora_nf5*"]), CPU)


def test_a_store_of_another_study_is_no_obstacle(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    bench = Bench.of(tmp_path, WORSE)
    bench.finish()
    again = Bench(bench.comparison, StubExecutor(store, WORSE))
    assert again.agenda().finished, "records are used again"


def test_the_page_says_that_the_base_is_itself_dequantized(tmp_path: Path) -> None:
    """Its file holds Q4_1, so what NF4 costs here comes on top of that."""
    bench = Bench.of(tmp_path, suite="quick")
    page = make_page(bench.finish(), bench.steering)
    told = str(page.sections[0].blocks)
    assert "dequantized: the model's file holds Q4_1 weights" in told
    assert "int4" not in told
    bench = Bench.of(tmp_path, suite="quick", variants=["lora_bf16", "lora_int4"])
    assert "int4 rounds to the grid" in str(make_page(bench.agenda(), bench.steering).sections[0])


def test_without_an_interval_the_answer_says_why(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, World(worse={"qlora_nf4": 0.05}, trees=3))
    (told,) = answer(bench.finish()).conclusions
    assert "2 seeds" in told
    assert "no interval: fewer than" in told


def test_an_arm_dropped_before_it_was_tuned_has_no_best_rate(tmp_path: Path) -> None:
    """Its runs at the default rate are not told under "best"."""
    bench = Bench.of(tmp_path, WORSE)
    for job in bench.agenda().jobs:
        if job.stage == "verdict" or job.arm == "lora_bf16":
            bench.executor.run(job.plan)
    bench.steering = Steering((Decision(time="now", kind="drop", value="qlora_nf4"),))
    agenda = bench.finish()
    best = agenda.standings["best"]
    assert len(agenda.standings["default"].runs["qlora_nf4"]) == 2
    assert "qlora_nf4" not in best.rates
    assert best.runs["qlora_nf4"] == ()
    found = best.conclusion("qlora_nf4")
    assert found is not None
    assert (found.difference, found.limit) == (None, "dropped")
    assert "not tuned" in str(make_page(agenda, bench.steering).sections[1].blocks)


def test_a_log_that_drops_the_reference_still_compares(tmp_path: Path) -> None:
    """Older logs may hold such a decision."""
    bench = Bench.of(tmp_path, WORSE)
    bench.steering = Steering((Decision(time="now", kind="drop", value="lora_bf16"),))
    best = bench.finish().standings["best"]
    assert best.rates["lora_bf16"] == 5e-4, "it is tuned as the others are"
    found = best.conclusion("qlora_nf4")
    assert found is not None
    assert found.decided


def test_a_study_that_is_still_tuning_is_not_answered(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, World(worse={"qlora_nf4": 0.5}))
    while verdicts := [job for job in bench.agenda().jobs if job.stage == "verdict"]:
        for job in verdicts:
            bench.executor.run(job.plan)
    agenda = bench.agenda()
    found = agenda.standings["default"].conclusion("qlora_nf4")
    assert found is not None
    assert found.decided
    assert answer(agenda).state == "partial"
    assert "not finished" in str(make_page(agenda, bench.steering).sections[0].blocks)


@pytest.mark.parametrize(
    ("failing", "limits"),
    [
        (("lora_bf16",), ["reference", "reference"]),
        (("lora_bf16", "qlora_nf4"), ["failed", "reference"]),
        (("lora_bf16", "qlora_nf4", "qlora_fp4"), ["failed", "failed"]),
        (("qlora_nf4",), ["failed", "seeds"]),
    ],
)
def test_whose_runs_failed_is_said(
    tmp_path: Path, failing: tuple[str, ...], limits: list[str]
) -> None:
    world = World(fails=lambda plan: "failed" if plan.variant in failing else "", seed_sd=0.02)
    variants = ["lora_bf16", "qlora_nf4", "qlora_fp4"]
    bench = Bench.of(tmp_path, world, variants=variants, tune={"trials": 1})
    agenda = bench.finish()
    found = [agenda.standings["default"].conclusion(label) for label in variants[1:]]
    assert [one.limit for one in found if one is not None] == limits
    told = " ".join(answer(agenda).conclusions)
    assert ("no run of the reference finished" in told) == ("reference" in limits)


def test_a_failed_run_of_the_reference_closes_nothing(tmp_path: Path) -> None:
    """One pair is left at the first look, which says nothing of seeds; the next look has two."""
    world = World(
        worse={"qlora_nf4": 0.3, "qlora_fp4": 0.6},
        fails=lambda plan: "failed" if (plan.variant, plan.seed) == ("lora_bf16", 1) else "",
    )
    variants = ["lora_bf16", "qlora_nf4", "qlora_fp4"]
    agenda = Bench.of(tmp_path, world, variants=variants, tune={"trials": 1}).finish()
    found = answer(agenda)
    assert found.state == "answered"
    for text in found.conclusions:
        assert "is worse than lora_bf16" in text
        assert text.endswith("; lora_bf16 failed at seed 1.")


def test_the_seeds_told_are_those_that_both_sides_have(tmp_path: Path) -> None:
    """Of five seeds two failed: three pairs decide, in the sentence and in the table."""
    world = World(
        worse={"qlora_nf4": -0.012}, seed_sd=0.004,
        fails=lambda plan: "failed" if plan.variant == "qlora_nf4" and plan.seed in (2, 3) else "",
    )  # fmt: skip
    bench = Bench.of(tmp_path, world, tune={"trials": 1}, seeds={"stop": 5})
    agenda = bench.finish()
    (told,) = answer(agenda).conclusions
    assert ", 3 seeds; qlora_nf4 failed at seeds 2, 3" in told
    assert "5 seeds" not in told
    assert r"3\xa0seeds" in str(make_page(agenda, bench.steering).sections[1].blocks)


def test_two_untrained_variants_are_told_by_the_whole_of_their_error(tmp_path: Path) -> None:
    """More seeds change nothing of them, so the rule of seeds changes nothing either."""
    world = World(worse={"base_nf4": 0.022}, item_sd=0.02)
    variants, told = ["base", "base_nf4", "lora_bf16"], []
    for number, seeds in enumerate(({"least": 2, "most": 5}, {"stop": 5})):
        bench = Bench.of(tmp_path / str(number), world, variants=variants, reference="base",
                         tune={"trials": 1}, seeds=seeds)  # fmt: skip
        told += [text for text in answer(bench.finish()).conclusions if "base_nf4" in text]
    assert "is worse than base" in told[0]
    assert told[0].endswith("neither is trained.")
    assert told[0] == told[1]


def test_runs_on_other_items_are_not_said_to_have_failed(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, tune={"trials": 1}, variants=["lora_bf16", "qlora_nf4", "qlora_fp4"])
    for job in bench.agenda().jobs:
        bench.executor.world.trees = 30 if job.arm == "qlora_nf4" else 40
        bench.executor.run(job.plan)
    told = answer(bench.agenda()).conclusions
    assert "qlora_nf4: its runs are left out: scored on other items." in told


def test_what_more_seeds_would_decide_is_said_of_a_published_page(tmp_path: Path) -> None:
    world = World(worse={"qlora_nf4": 0.012}, seed_sd=0.01)
    bench = Bench.of(tmp_path, world, tune={"trials": 1})
    for job in bench.agenda().jobs:
        bench.executor.run(job.plan)
    (line,) = [text for text in answer(bench.agenda()).changes if "next look" in text]
    assert line == "qlora_nf4: open at 2 seeds; the next look needs 3 of each side."


def test_what_waits_for_more_runs_is_said_once(tmp_path: Path) -> None:
    variants = ["lora_bf16", *(f"lora_bf16_r{rank}" for rank in (4, 8, 64, 256)), "qlora_nf4"]
    told = answer(Bench.of(tmp_path, variants=variants, tune={"trials": 1}).agenda()).conclusions
    (line,) = [text for text in told if "more runs" in text]
    assert line == (
        "lora_bf16_r4, lora_bf16_r8, lora_bf16_r64, lora_bf16_r256 and 1 other: more runs are to "
        "come."
    )
