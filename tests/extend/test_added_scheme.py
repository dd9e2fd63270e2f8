"""A scheme from an installed package is planned, loaded, trained, scored and recorded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.records.record import RunRecord
from harness.records.store import RunStore, StoredRun
from tests.runs.small_run import Small, make_small

ADDED = Path(__file__).parent / "added"
SPEEDS = ("plain", "fast")
VARIANT = 'description = "mine"\nquantization = { type = "rounded", shrink = 0.9 }\n'


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return make_small(tmp_path_factory.mktemp("small"), steps=6)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the path in which the package is installed, as pip leaves it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "rounded.py").write_bytes((ADDED / "rounded.py").read_bytes())
    info = folder / "rounded-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rounded\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[finetune_harness.schemes]\nrounded = rounded:ROUNDED\nbroken = no_such_module:IT\n"
    )
    return folder


def harness(site: Path, *arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH", ""))))
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path, "FINETUNE_HARNESS_CACHE": str(cache)},
    )


@pytest.fixture(scope="module")
def records(
    small: Small, site: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, RunRecord]:
    """The records of whole runs by their path, as the command line makes them."""
    folder = tmp_path_factory.mktemp("run")
    chosen = []
    for speed in SPEEDS:
        (folder / f"{speed}.toml").write_text(VARIANT + f'training = {{ speed = "{speed}" }}\n')
        chosen += ["-v", str(folder / f"{speed}.toml")]
    done = harness(
        site, "run", *chosen, "-s", str(small.suite), "--device", "cpu",
        "--set", "training.learning_rate=0.01",
        "--set", 'score.precisions=["training", "16bit"]', "--reports", str(folder),
        cache=folder / "cache",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    runs = [run for run in RunStore(folder / "runs").scan() if isinstance(run, StoredRun)]
    return {run.record.plan.training.speed: run.record for run in runs}


@pytest.fixture(params=SPEEDS)
def record(request: pytest.FixtureRequest, records: dict[str, RunRecord]) -> RunRecord:
    return records[request.param]


def test_the_plan_names_the_scheme_with_all_its_settings(record: RunRecord) -> None:
    """The record is read in this process, where the package is not installed."""
    written = record.plan.quantization.model_dump()
    assert written == {"type": "rounded", "double": False, "shrink": 0.9}


def test_the_census_counts_its_bits(record: RunRecord) -> None:
    assert record.census is not None
    (row,) = [row for row in record.census.rows if row.quantization != "none"]
    assert row.quantization == "rounded shrink=0.9"
    outputs = 2 * (64 + 32 + 32 + 64 + 128 + 128 + 64)
    assert row.bytes == row.elements // 2 + 4 * outputs
    assert record.census.compute_dtype == record.plan.precision.compute


def test_the_forecast_counts_the_same_bytes(record: RunRecord) -> None:
    assert record.census is not None
    assert record.prediction is not None
    base = sum(row.bytes for row in record.census.rows if not row.trainable)
    assert record.prediction.parts["weights"] == base


def test_it_is_trained_and_scored_in_every_form(record: RunRecord) -> None:
    assert record.status == "ok"
    assert record.training is not None
    assert record.training.trainer == record.plan.training.speed
    losses = [point.loss for point in record.training.losses]
    assert losses[-1] < losses[0]
    values = {
        (score.stage, score.precision): score.value for score in record.scores if score.headline
    }
    assert values["before", "training"] != values["before", "16bit"]
    assert values["after", "training"] < values["before", "training"]


def test_doctor_and_close_matches_know_it(site: Path, tmp_path: Path) -> None:
    done = harness(site, "plan", "-v", "qlora_nf4", "--set", "quantization.type=roundet",
                   cache=tmp_path)  # fmt: skip
    assert done.returncode == 2
    assert "did you mean rounded?" in done.stderr


def test_a_package_that_cannot_be_imported_is_named(site: Path, tmp_path: Path) -> None:
    done = harness(site, "plan", "-v", "qlora_nf4", "--set", "quantization.type=broken",
                   cache=tmp_path)  # fmt: skip
    assert done.returncode == 2
    assert "broken = no_such_module:IT" in done.stderr
    assert "Traceback" not in done.stderr
