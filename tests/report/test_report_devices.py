"""Runs that several devices shared show what each of them cost."""

from __future__ import annotations

from pathlib import Path

from harness.records.record import DeviceCost, RunRecord
from harness.records.store import RunStore, StoredRun
from harness.report.build import Report, ReportRequest, build_report
from harness.spec.storage import write_json
from tests.report.records import seven, write_runs


def share(store: RunStore) -> str:
    """Let the first trained run be one of two GPUs; its variant."""
    runs = [run for run in store.scan() if isinstance(run, StoredRun) and run.record.plan.trains]
    record, folder = runs[0].record, runs[0].folder
    phases = tuple(
        cost.model_copy(
            update={
                "devices": tuple(
                    DeviceCost(
                        peak_resident_bytes=size << 30,
                        peak_allocated_bytes=size << 30,
                        peak_reserved_bytes=size << 30,
                        peak_device_bytes=size << 30,
                        energy_joules=100.0 * size,
                    )
                    for size in (3, 4)
                )
            }
        )
        for cost in record.phases
    )
    shared: RunRecord = record.model_copy(update={"phases": phases})
    write_json(folder.record, shared)
    return record.plan.variant


def report_of(store: RunStore) -> Report:
    """The report of everything there."""
    runs = [run for run in store.scan() if isinstance(run, StoredRun)]
    return build_report(runs, [], ReportRequest(suite=runs[0].record.plan.suite))


def test_each_device_has_its_peak_and_its_energy(tmp_path: Path) -> None:
    write_runs(tmp_path, seven(seeds=1))
    store = RunStore(tmp_path)
    before = report_of(store)
    assert [found for found in before.sections if found.key == "devices"] == []
    variant = share(store)
    report = report_of(store)
    (section,) = [found for found in report.sections if found.key == "devices"]
    table = next(block for block in section.blocks if hasattr(block, "rows"))
    lines = [[cell.text for cell in row] for row in table.rows]
    assert [line[:2] for line in lines] == [[variant, "train"], [variant, "score"]]
    assert {line[2] for line in lines} == {"3.00 GiB, 4.00 GiB"}
    assert {line[3] for line in lines} == {"0.300 kJ, 0.400 kJ"}
