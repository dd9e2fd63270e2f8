"""A store's lines: what a listing of many runs needs, without reading whole records."""

from __future__ import annotations

from pathlib import Path

from harness.records.store import BrokenRun, RunLine, RunStore
from tests.report.records import Made, write_run, write_runs


def test_lines_say_what_the_records_say(tmp_path: Path) -> None:
    write_runs(tmp_path, [Made("base"), Made("qlora_nf4", seed=1, status="oom")])
    lines = [line for line in RunStore(tmp_path).lines() if isinstance(line, RunLine)]
    assert [(line.plan.variant, line.plan.seed, line.status) for line in lines] == [
        ("base", 0, "ok"),
        ("qlora_nf4", 1, "oom"),
    ]


def test_broken_records_are_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Made("base"))
    (folder / "record.json").write_text('{"schema_version": 1, "plan": {')
    (line,) = RunStore(tmp_path).lines("quick")
    assert isinstance(line, BrokenRun)
    assert line.folder.path == folder
