"""What a look may err is settled when its decision is taken, and all of it together is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.spec.study import Seeds
from harness.studies.arms import compare_what
from harness.studies.rules import Rules
from harness.studies.steering import Decision, Steering
from tests.planned import CPU
from tests.studies.stub import Bench, World, study

SEEDS = Seeds(least=2, most=4)


def decisions(*taken: tuple[str, str]) -> tuple[Decision, ...]:
    """Decisions in this order, as a log holds them."""
    return tuple(
        Decision.model_validate({"time": "2026-01-01T00:00:00", "kind": kind, "value": value})
        for kind, value in taken
    )


LOG = decisions(
    ("add", "qlora_fp4"), ("more_seeds", "2"), ("drop", "qlora_nf4"), ("add", "lora_int8"),
    ("more_seeds", "1"),
)  # fmt: skip


def test_a_later_decision_changes_no_look_of_an_earlier_one() -> None:
    for count in range(len(LOG)):
        before, after = (Rules.of(SEEDS, 0.05, LOG[:end]) for end in (count, len(LOG)))
        for old, new in zip((before.planned, *before.added), (after.planned, *after.added)):  # noqa: B905 - later adds have no earlier rule
            assert new.stretches[: len(old.stretches)] == old.stretches


def test_all_looks_together_err_no_more_than_the_study_may() -> None:
    found = Rules.of(SEEDS, 0.05, LOG)
    errors = [error for rule in (found.planned, *found.added) for _, error in rule.stretches]
    assert 0.95 * 0.05 < sum(errors) <= 0.05
    assert found.added[0].stretches[0] == ((2, 3, 4), pytest.approx(0.05 * 0.05))
    assert found.added[1].stretches[0][0] == (2, 3, 4, 5, 6), "the seeds allowed when it was added"
    assert {rule.last for rule in (found.planned, *found.added)} == {7}


def added_at(*seconds: float) -> tuple[Decision, ...]:
    names = ("ia3", "vera", "hra", "oft")
    return tuple(
        Decision(time=f"2026-01-01T00:00:{second:09.6f}+00:00", kind="add", value=name)
        for name, second in zip(names, seconds, strict=False)
    )


def test_what_one_command_adds_is_one_decision() -> None:
    """Twelve variants typed at once must not halve the error twelve times."""
    found = Rules.of(SEEDS, 0.05, added_at(1.0, 1.0002, 1.0004, 9.0))
    assert found.decided == (0, 0, 0, 1)
    errors = [rule.stretches[0][1] for rule in found.added]
    assert errors == [pytest.approx(0.05 * 0.05), pytest.approx(0.05 * 0.025)]
    apart = Rules.of(SEEDS, 0.05, added_at(1.0, 3.0))
    assert apart.decided == (0, 1)


def test_variants_that_one_command_adds_are_judged_as_one_family(tmp_path: Path) -> None:
    """So the order in which they were typed says nothing."""
    names = ("ia3", "vera")
    bench = Bench.of(tmp_path, World(seed_sd=0.02), tune={"trials": 1})
    bench.comparison = compare_what(study(tune={"trials": 1}), CPU, added=names)
    bench.steering = Steering(added_at(1.0, 1.0002))
    found = bench.finish().standings["default"].following.conclusions
    assert {found[name].seeds for name in names} == {4}
    assert len({found[name].level for name in names}) == 1


def test_more_seeds_leave_an_added_variants_looks_as_they_were(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, World(seed_sd=0.02), tune={"trials": 1})
    bench.comparison = compare_what(study(tune={"trials": 1}), CPU, added=("qlora_fp4",))
    bench.steering = Steering(decisions(("add", "qlora_fp4")))
    before = bench.finish().standings["default"].conclusion("qlora_fp4")
    bench.steering = Steering(decisions(("add", "qlora_fp4"), ("more_seeds", "2")))
    after = bench.agenda().standings["default"].conclusion("qlora_fp4")
    assert before is not None
    assert after is not None
    assert (before.seeds, before.limit, after.limit) == (4, "seeds", "waiting")
    assert (after.seeds, after.level) == (before.seeds, before.level)
