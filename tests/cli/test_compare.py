"""`compare` is a gate for regressions: it ends with 1 when a bound is passed."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from harness.records.store import RunStore
from tests.cli.terminal import harness, refused, shown
from tests.report.records import Made, plan_of, write_run, write_runs

WORSE = "qlora_fp4"
BETTER = "lora_bf16"
FAILED = "full_finetune"


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two variants at three seeds, the second clearly better, and a run that failed."""
    folder = tmp_path_factory.mktemp("reports")
    made = [Made(WORSE, seed=seed, log_ratio=0.2) for seed in range(3)]
    made += [Made(BETTER, seed=seed, log_ratio=-0.2) for seed in range(3)]
    write_runs(folder / "runs", [*made, Made(FAILED, status="oom")])
    return folder


def test_a_comparison_shows_every_quantity_of_both_sides(reports: Path) -> None:
    text = shown("compare", WORSE, BETTER, "--reports", str(reports))
    for words in ("perplexity", "memory", "throughput", "95 %"):
        assert words in text


@pytest.mark.parametrize(
    ("sides", "gate", "code"),
    [
        ((WORSE, BETTER), "perplexity > +1%", 0),
        ((BETTER, WORSE), "perplexity > +1%", 1),
        ((WORSE, FAILED), "perplexity > +1%", 1),
        ((BETTER, BETTER), "perplexity > +1%", 0),
    ],
)
def test_the_exit_code_is_one_when_a_bound_is_passed_or_the_score_is_missing(
    reports: Path, sides: tuple[str, str], gate: str, code: int
) -> None:
    done = harness("compare", *sides, "--reports", str(reports), "--fail-if", gate)
    assert done.code == code, done.stdout
    assert "perplexity of" in done.stdout
    assert ("OK:" in done.stdout) == (code == 0)


def test_every_bound_counts(reports: Path) -> None:
    gates = ("--fail-if", "perplexity > +1%", "--fail-if", "perplexity < -1%")
    assert harness("compare", WORSE, BETTER, "--reports", str(reports), *gates).code == 1


def test_json_and_junit_say_the_same_as_the_table(reports: Path) -> None:
    command = ("compare", BETTER, WORSE, "--reports", str(reports))
    gate = ("--fail-if", "perplexity > +1%")
    done = harness(*command, *gate, "--format", "json")
    assert done.code == 1
    assert "failed" in json.dumps(json.loads(done.stdout))
    done = harness(*command, *gate, "--format", "junit")
    assert done.code == 1
    assert ET.fromstring(done.stdout).find(".//failure") is not None


def test_folders_can_be_compared(reports: Path) -> None:
    sides = [str(reports / "runs" / "quick" / name) for name in (WORSE, BETTER)]
    assert "perplexity" in shown("compare", *sides)


def test_an_unknown_variant_is_refused_with_those_that_have_run(reports: Path) -> None:
    message = refused("compare", WORSE, "qlora_nf4", "--reports", str(reports))
    assert "unknown run or variant 'qlora_nf4'" in message
    assert BETTER in message


def test_a_variant_whose_only_record_is_cut_is_named_as_that(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", Made(WORSE))
    path = write_run(tmp_path / "runs", Made(BETTER)) / "record.json"
    path.write_text(path.read_text()[:200])
    message = refused("compare", WORSE, BETTER, "--reports", str(tmp_path))
    assert "not a whole JSON document" in message
    assert str(path) in message
    message = refused("compare", WORSE, str(path.parent), "--reports", str(tmp_path))
    assert str(path) in message


def test_a_record_among_others_that_is_cut_is_one_yellow_line(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", [Made(WORSE), Made(BETTER), Made(BETTER, seed=1)])
    path = RunStore(tmp_path / "runs").folder(plan_of(Made(BETTER, seed=1))).record
    path.write_text("{")
    done = harness("compare", WORSE, BETTER, "--reports", str(tmp_path))
    assert done.code == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"left out, cannot be read: {path}: ")


def test_a_bound_on_something_that_was_not_measured_is_refused(reports: Path) -> None:
    gate = ("--fail-if", "perplexty > +1%")
    message = refused("compare", WORSE, BETTER, "--reports", str(reports), *gate)
    assert "unknown quantity 'perplexty'" in message


@pytest.mark.parametrize(
    ("option", "value"), [("--fail-if", "perplexity"), ("--margin", "2"), ("--format", "yaml")]
)
def test_a_mistake_is_refused(reports: Path, option: str, value: str) -> None:
    assert value in refused("compare", WORSE, BETTER, "--reports", str(reports), option, value)
