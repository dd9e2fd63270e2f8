"""What the hours of a budget buy is said before they are spent, with settings that fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.records.record import PhaseCost, RunRecord, Score, Throughput, Tokens, TrainResult
from harness.records.store import StoredRun
from harness.spec.plan import Plan
from harness.studies.agenda import Agenda, next_plans
from harness.studies.arms import verdict_job
from harness.studies.fitting import measured, said_fit
from harness.studies.reach import reach, said_least, said_reach
from tests.store_records import record_of
from tests.studies.stub import Bench, World

WORSE = World(worse={"qlora_nf4": 0.05})


def of_study(folder: Path, hours: float | None, **more: object) -> Agenda:
    return Bench.of(folder, WORSE, budget={"hours": hours}, **more).agenda()


@pytest.mark.parametrize(
    ("hours", "runs", "ends_in", "words"),
    [
        (0.5, 3, "tuning", "0.5 hours buys about 3 of at least 10 runs of 10 min 00 s each: it st"),
        (0.6, 3, "tuning", "before any comparison is looked at. The study takes at least 1 h 40"),
        (1.5, 9, "default settings", "before all comparisons are looked at"),
        (2.0, 10, "", "is enough where comparisons are decided early: the study takes 1 h 40 min"),
        (9.0, 10, "", "9 hours is enough: the study takes at most 4 h 40 min"),
    ],
)  # fmt: skip
def test_how_far_hours_go(
    tmp_path: Path, hours: float, runs: int, ends_in: str, words: str
) -> None:
    agenda = of_study(tmp_path, hours)
    found = reach(agenda, lambda _: 600.0)
    assert found is not None
    assert (found.runs, found.least, found.ends_in) == (runs, 10, ends_in)
    assert words in " ".join(said_reach(agenda, found))


@pytest.mark.parametrize(
    ("minutes", "runs", "ends_in"),
    [(9, 10, ""), (9.9, 9, "default settings")],  # a tenth at least is charged for going on
)
def test_a_run_that_was_begun_is_charged_once(
    tmp_path: Path, minutes: float, runs: int, ends_in: str
) -> None:
    """Ten runs of ten minutes fit exactly."""
    bench = Bench.of(tmp_path, WORSE, budget={"hours": 100 / 60})
    arm = bench.comparison.arms[0]
    job = verdict_job(arm, arm.default, 0)
    record = record_of(job.plan, status="interrupted", seconds=60 * minutes)
    bench.executor.store.write(record)
    findings = bench.findings()
    agenda = next_plans(bench.comparison, findings.find, begun=findings.begun)
    found = reach(agenda, lambda _: 600.0)
    assert found is not None
    assert (found.runs, found.ends_in) == (runs, ends_in)
    beyond = replace(agenda, begun={verdict_job(arm, arm.default, 3): 540.0})
    found = reach(beyond, lambda _: 600.0)
    assert found is not None
    assert found.runs == 9, "a run beyond the least takes the place of one"


def test_nothing_is_said_of_hours_that_are_not_asked_for(tmp_path: Path) -> None:
    agenda = of_study(tmp_path, None)
    assert reach(agenda, lambda _: 600.0) is None
    assert list(said_reach(agenda, None)) == []


def test_what_is_not_known_is_told_by_the_first_run(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, WORSE, budget={"hours": 0.01}, tune={"trials": 1})
    agenda = bench.agenda()
    assert reach(agenda, lambda _: None) is None
    assert "The first run tells" in " ".join(said_reach(agenda, None))
    bench.executor.run(agenda.jobs[0].plan)
    found = reach(bench.agenda(), lambda _: None)
    assert found is not None, "a variant that was not run yet is taken to be like the others"
    assert (found.runs, found.seconds[0]) == (3, 40.0), "runs take ten seconds here"


def a_run(plan: Plan, **scored: int) -> RunRecord:
    """Ten minutes: four of training in 50 steps, three of scores, the rest of its size."""
    names = {"load": 180.0, "train": 240.0, "score_base": 60.0, "score": 120.0}
    costs = tuple(PhaseCost(name=name, seconds=taken) for name, taken in names.items())  # type: ignore[arg-type,call-arg]
    return record_of(
        plan,
        seconds=600.0,
        phases=costs,
        training=TrainResult(
            steps=50,
            tokens=Tokens(assistant=1, non_padding=1, padded=1, truncated=0),
            losses=(),
            throughput=Throughput(warmup_steps=0, median=None, p10=None, p90=None),
            trainer="plain",
        ),
        scores=tuple(
            Score(
                task="held_out", metric="perplexity", stage=stage, value=7.0,  # type: ignore[arg-type]
                standard_error=None, n=count, unit="per token", direction="lower",
            )
            for stage, count in scored.items()
        ),
    )  # fmt: skip


SIZED = {"corpus.held_out_limit": 200, "budget.steps": 50}


def after_one_run(folder: Path, hours: float, **more: object) -> Agenda:
    settings = SIZED | more.pop("settings", {})  # type: ignore[operator]
    bench = Bench.of(folder, WORSE, budget={"hours": hours}, settings=settings, **more)
    arm = bench.comparison.arms[0]
    job = verdict_job(arm, arm.default, 0)
    bench.executor.store.write(a_run(job.plan, before=200, after=200))
    return bench.agenda()


def test_the_parts_of_a_run_tell_how_long_a_smaller_one_takes(tmp_path: Path) -> None:
    found = measured(after_one_run(tmp_path, 1.0))
    assert found is not None
    assert (found.fixed, found.train, found.score, found.steps) == (180.0, 240.0, 0.9, 50)
    assert found.seconds(1.0) == 600.0
    assert found.seconds(0.5) == 390.0
    assert (found.share(390.0), found.share(9000.0)) == (0.5, 1.0)


def test_a_trial_tells_it_too(tmp_path: Path) -> None:
    """It is scored on the validation split, once, and may have had a part of the budget."""
    agenda = of_study(tmp_path, 1.0, settings=SIZED)
    job = replace(agenda.jobs[0], share=0.5)
    run = StoredRun(Bench.of(tmp_path).findings().folder(job), a_run(job.plan, after=100))
    found = measured(replace(agenda, settled={job: run}))
    assert found is not None
    assert (found.train, found.score, found.steps) == (480.0, 2 * 1.8, 100)


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (2.0, "6 runs of at most 10 min 00 s each: --claim NAME --set study.tune.trials=1 --set"),
        (2.0, "--set study.seeds.stop=3 --set 'score.tasks=[]' --set score.forgetting=false"),
        (0.7, "--set study.seeds.stop=3 --set budget.steps=23 --set corpus.held_out_limit=94 "),
        (0.2, "0.2 hours is too small for a claim on this machine: 6 runs of"),
        (0.2, "6 runs of a useful size take about 0.57 hours."),
    ],
)  # fmt: skip
def test_settings_that_fit_are_computed(tmp_path: Path, hours: float, words: str) -> None:
    agenda = after_one_run(tmp_path, hours, settings={"score.forgetting": True})
    assert words in " ".join(said_fit(agenda, measured(agenda)))


def test_scores_and_rates_that_a_claim_asks_for_stay(tmp_path: Path) -> None:
    more = {"claims": ["lora_learns_less"], "variants": ["lora_bf16", "full_finetune"]}
    agenda = after_one_run(tmp_path / "a", 2.0, settings={"score.forgetting": True}, **more)
    (told,) = said_fit(agenda, measured(agenda))
    assert "1 claim can be judged at default learning rates, by 6 runs" in told
    assert "forgetting" not in told
    assert "NAME" not in told
    more["claims"] = ["lora_rate_ten_times"]
    agenda = after_one_run(tmp_path / "b", 9.0, **more)
    (told,) = said_fit(agenda, measured(agenda))
    assert "1 claim can be judged, by 18 runs" in told, "three rates and two times three seeds each"
    assert "tune.trials" not in told


def test_without_a_run_nothing_is_advised(tmp_path: Path) -> None:
    agenda = of_study(tmp_path, 1.0)
    assert measured(agenda) is None
    assert list(said_fit(agenda, None)) == []


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (0.5, "At most 3 of at least 10 runs fit into 0.5 hours: it stops while it tunes, before"),
        (0.5, "training alone takes 10 min 00 s a run and 1 h 40 min in all, at the least"),
        (9.0, ""),
    ],
)
def test_arithmetic_tells_which_hours_are_too_few(tmp_path: Path, hours: float, words: str) -> None:
    agenda = of_study(tmp_path, hours)
    told = " ".join(said_least(agenda, reach(agenda, lambda _: 600.0)))
    assert words in told
    assert bool(told) == bool(words), "what training alone leaves room for is not told"
    assert list(said_least(agenda, reach(agenda, lambda _: None))) == []


def test_items_of_other_forms_and_tasks_make_no_conversation_cheaper(tmp_path: Path) -> None:
    agenda = after_one_run(tmp_path, 1.0)
    ((job, run),) = agenda.settled.items()
    plain = run.record.scores[0]
    more = [
        plain.model_copy(update={"precision": "merged"}),
        plain.model_copy(update={"task": "context_256", "n": 50}),
        plain.model_copy(update={"task": "wikitext", "n": 60}),
    ]
    record = run.record.model_copy(update={"scores": (*run.record.scores, *more)})
    found = measured(replace(agenda, settled={job: StoredRun(run.folder, record)}))
    assert found is not None
    assert found.score == 0.9
