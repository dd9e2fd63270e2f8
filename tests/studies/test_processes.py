"""Studies as people run them: whole commands that are killed, doubled and divided."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.records.events import EventTail, ProcessStarted
from harness.records.record import RunRecord
from harness.records.store import RunFolder, RunStore, StoredRun
from harness.runs.bucket import fetch_rest
from harness.spec.device import detect_device
from harness.studies.open import StudyRequest, open_study
from tests.cli.terminal import ROOT
from tests.runs.results import files, results
from tests.runs.small_run import FIRST_NOTE, Small, halt, make_small, paths_named, start_of

KILLS = 10
LONGEST_WAIT = 12.0  # seconds before a kill
PATIENCE = 3600
STUDY = """
description = "small"
question = "Is there a difference?"
suite = "{suite}"
variants = {variants}
reference = "{reference}"
[settings]
"budget.steps" = 6
[tune]
trials = 1
[seeds]
least = 2
most = 2
"""
TUNED = "trials = 2\nwidenings = 0\nvalidation_fraction = 0.3"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A model, a corpus and a suite."""
    return make_small(tmp_path_factory.mktemp("small"))


def study(small: Small, *variants: str) -> Path:
    """A study of some variants; the first is the reference."""
    path = small.folder / f"{variants[0]}.toml"
    text = STUDY.format(suite=small.suite, variants=list(variants), reference=variants[0])
    path.write_text(text.replace("'", '"'))
    return path


begun: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """A driver that a failed test no longer waits for makes no more runs."""
    yield
    while begun:
        begun.pop().kill()


def start(path: Path, reports: Path, *more: str) -> subprocess.Popen[str]:
    """A driver of its own."""
    command = [sys.executable, "-m", "harness", "study", str(path), "--device", "cpu"]
    driver = subprocess.Popen(
        [*command, "--reports", str(reports), *more],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    begun.append(driver)
    return driver


def finish(driver: subprocess.Popen[str]) -> str:
    """What it printed; it must end well."""
    printed, _ = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, printed
    return printed


def answer(printed: str) -> list[str]:
    """The sentences of the answer."""
    return re.findall(r"^- .*$", printed, re.MULTILINE)


def records(reports: Path) -> dict[str, RunRecord]:
    """All records by the names of their runs."""
    found = [run for run in RunStore(reports / "runs").scan() if isinstance(run, StoredRun)]
    return {run.record.plan.run_name: run.record for run in found}


def test_two_drivers_on_one_study_run_nothing_twice(small: Small, tmp_path: Path) -> None:
    path = study(small, "base", "base_nf4")
    drivers = [start(path, tmp_path), start(path, tmp_path)]
    printed = [finish(driver) for driver in drivers]
    assert answer(printed[0]) == answer(printed[1])
    found = records(tmp_path)
    assert sorted(record.plan.variant for record in found.values()) == ["base", "base_nf4"]
    for name in found:
        events = EventTail(tmp_path / "runs" / name / "events.jsonl").new()
        assert sum(isinstance(event, ProcessStarted) for event in events) == 1
    assert sum(text.count("✓") for text in printed) >= 2, "each run was somebody's"


@pytest.fixture(scope="module")
def whole(small: Small, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study that nothing disturbed, and what it printed."""
    reports = tmp_path_factory.mktemp("whole")
    return reports, finish(start(study(small, "lora_bf16", "lora_bf16_r4"), reports))


def check_equal(reports: Path, whole: Path) -> None:
    """Every record and file is that of the undisturbed study, bit for bit."""
    expected, found = records(whole), records(reports)
    assert found.keys() == expected.keys()
    for name, record in found.items():
        assert results(record) == results(expected[name]), name
        stores = RunStore(reports / "runs"), RunStore(whole / "runs")
        assert files(stores[0], record.plan) == files(stores[1], record.plan), name


@pytest.mark.slow
def test_a_driver_killed_at_ten_random_moments_loses_nothing(
    small: Small, whole: tuple[Path, str], tmp_path: Path
) -> None:
    path, chance = study(small, "lora_bf16", "lora_bf16_r4"), random.Random(10)
    kept: dict[Path, bytes] = {}
    for _ in range(KILLS):
        driver = start(path, tmp_path)
        time.sleep(chance.uniform(0, LONGEST_WAIT))
        driver.send_signal(signal.SIGKILL)
        driver.communicate(timeout=600)
        for record, content in kept.items():
            assert record.read_bytes() == content, "what has been run is not run again"
        kept = {found: found.read_bytes() for found in tmp_path.rglob("runs/*/*/*/record.json")}
    printed = finish(start(path, tmp_path))
    assert answer(printed) == answer(whole[1])
    check_equal(tmp_path, whole[0])


@pytest.mark.slow
def test_two_parts_together_are_the_whole(
    small: Small, whole: tuple[Path, str], tmp_path: Path
) -> None:
    path = study(small, "lora_bf16", "lora_bf16_r4")
    parts = [start(path, tmp_path, "--shard", part) for part in ("1/2", "2/2")]
    for part in parts:
        finish(part)
    printed = finish(start(path, tmp_path))
    assert "next:" not in printed, "nothing was left"
    assert answer(printed) == answer(whole[1])
    check_equal(tmp_path, whole[0])


@pytest.mark.slow
def test_a_variant_that_is_held_at_its_trial_holds_no_other(small: Small, tmp_path: Path) -> None:
    """The other one has its first seeds at its best rate meanwhile."""
    path = study(small, "lora_bf16", "lora_bf16_r4")
    path.write_text(path.read_text().replace("trials = 1", TUNED))
    opened = open_study(StudyRequest(study=str(path)), detect_device("cpu"), tmp_path)
    default = opened.comparison().by_label["lora_bf16"].default
    jobs = opened.agenda().jobs
    held = next(job for job in jobs if job.stage == "tune" and job.arm == "lora_bf16_r4")
    asked = halt(tmp_path / "runs" / held.key, start_of("train"))
    driver, at_best, end = start(path, tmp_path, "--jobs", "2"), 0, time.monotonic() + PATIENCE
    while at_best < 2:
        time.sleep(0.5)
        found = [job for job in opened.agenda().settled if job.stage == "verdict"]
        at_best = sum(job.rate != default for job in found)
        assert driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < end
    asked.unlink()
    finish(driver)
    agenda = opened.agenda()
    assert agenda.finished
    assert agenda.standings["best"].conclusion("lora_bf16_r4") is not None


def until_nothing_is_left(path: Path, folders: list[Path], *more: str) -> list[str]:
    """Start each part again, on its own machine, until no part has anything to run."""
    while True:
        parts = [
            start(path, folder, "--shard", f"{place}/{len(folders)}", *more)
            for place, folder in enumerate(folders, 1)
        ]
        printed = [finish(part) for part in parts]
        if not any("✓" in text for text in printed):
            return printed


@pytest.mark.slow
def test_a_decision_reaches_a_machine_that_trains_elsewhere(small: Small, tmp_path: Path) -> None:
    """Two folders share nothing but a store; one adds a variant while the other is training."""
    path = study(small, "lora_bf16", "lora_bf16_r4")
    folders = [tmp_path / "first", tmp_path / "second"]
    store = ("--store", f"file://{tmp_path / 'bucket'}")
    asked = halt(folders[1], FIRST_NOTE)
    training = start(path, folders[1], *store)
    while not paths_named("events.jsonl", folders[1]):
        time.sleep(0.1)
        assert training.poll() is None
    noted = finish(start(path, folders[0], *store, "--add", "lora_rs"))
    assert "noted" in noted
    assert not list(folders[0].rglob("record.json"))
    asked.unlink()
    assert "lora_rs" in finish(training), "it followed in a round of its own"
    printed = until_nothing_is_left(path, folders, *store)
    assert answer(printed[0]) == answer(printed[1])
    for one in (folders[0] / "runs").rglob("rest.json"):  # adapters come when they are wanted
        fetch_rest(RunFolder(one.parent))
    check_equal(folders[0], folders[1])
    trained = [record.plan.variant for record in records(folders[0]).values()]
    assert sorted(trained) == ["lora_bf16"] * 2 + ["lora_bf16_r4"] * 2 + ["lora_rs"] * 2
