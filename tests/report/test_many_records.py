"""A thousand records are listed, reported and compared; how long it takes is not asserted."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from harness.records.record import RunRecord
from harness.records.store import RunFolder, RunStore
from harness.spec.seal import sealed
from harness.spec.storage import read_json
from tests.cli.terminal import shown
from tests.report.records import Made, write_run

VARIANTS = ("base", "lora_bf16", "qlora_nf4", "qlora_fp4")
SEEDS = 333


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of the base and 333 seeds of each other variant: a record and small items each."""
    reports = tmp_path_factory.mktemp("many") / "reports"
    store = RunStore(reports / "runs")
    for place, variant in enumerate(VARIANTS):
        made = Made(variant, log_ratio=-0.1 * place, trees=6)
        first = RunFolder(write_run(store.root, made))
        record = read_json(first.record, RunRecord)
        for seed in range(1, 1 if variant == "base" else SEEDS):
            plan = record.plan.model_copy(update={"seed": seed})
            folder = store.folder(plan)
            shutil.copytree(first.items, folder.items, copy_function=os.link)
            own = {"plan": plan, "fingerprint": plan.fingerprint}
            text = record.model_copy(update=own).model_dump_json(indent=1) + "\n"
            folder.record.write_text(sealed(text))  # as a store does, but for waiting for the disk
    return reports


def test_they_are_all_listed(reports: Path) -> None:
    rows = json.loads(shown("list", "runs", "--reports", str(reports), "--json"))
    assert len(rows) == 1 + 3 * SEEDS == 1000
    assert {row["variant"] for row in rows} == set(VARIANTS)


def test_they_are_all_in_the_report(reports: Path) -> None:
    shown("report", "--reports", str(reports), "--format", "csv")
    (path,) = reports.rglob("report.csv")
    with path.open(encoding="utf-8", newline="") as file:
        runs = Counter(variant for variant, _ in {(row["variant"], row["fingerprint"])
                                                  for row in csv.DictReader(file)})  # fmt: skip
    assert runs == {"base": 1, "lora_bf16": SEEDS, "qlora_nf4": SEEDS, "qlora_fp4": SEEDS}


def test_two_variants_are_compared_over_all_their_seeds(reports: Path) -> None:
    arguments = ("compare", "lora_bf16", "qlora_nf4", "--reports", str(reports), "--format", "json")
    (pair,) = json.loads(shown(*arguments))["pairs"]
    assert {change["seeds"] for change in pair["changes"]} == {SEEDS}
