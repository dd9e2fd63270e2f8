"""`report` writes the pages of a suite's runs, and names what it had to leave out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.records.store import RunStore
from tests.cli.terminal import harness, refused, shown
from tests.planned import planned
from tests.store_records import record_of


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """A store with one run."""
    store = RunStore(tmp_path / "runs")
    store.write(record_of(planned("base")))
    return store


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_report_says_where_it_is(store: RunStore, tmp_path: Path) -> None:
    text = shown("report", "--reports", str(tmp_path))
    page = tmp_path / "quick" / "report.md"
    assert f"report: {page}" in text
    assert "base" in page.read_text()


def test_all_the_data_in_one_file(store: RunStore, tmp_path: Path) -> None:
    shown("report", "--reports", str(tmp_path), "--format", "json")
    assert json.loads((tmp_path / "quick" / "report.json").read_text())


def test_every_unreadable_record_is_one_line_on_the_terminal(
    store: RunStore, tmp_path: Path
) -> None:
    paths = [store.write(record_of(planned("qlora_nf4", seed=seed))) for seed in (0, 1)]
    for path in paths:
        path.write_text(path.read_text()[:100])
    done = harness("report", "--reports", str(tmp_path))
    assert done.code == 0
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    for path, line in zip(sorted(paths), lines, strict=True):
        assert line.startswith(f"left out, cannot be read: {path}: not a whole JSON document")


EVENTS = Path(__file__).parents[3] / "shared" / "cases" / "events"


@pytest.mark.parametrize("name", ["badphase.jsonl", "noevtime.jsonl"])
def test_an_odd_line_of_an_abandoned_run_blocks_no_report(
    store: RunStore, tmp_path: Path, name: str
) -> None:
    if not EVENTS.is_dir():
        pytest.skip(f"the cases are not at {EVENTS}")
    plan = planned("qlora_nf4")
    attempt = store.folder(plan).attempt
    attempt.path.mkdir(parents=True)
    attempt.plan.write_text(plan.model_dump_json())
    attempt.events.write_bytes((EVENTS / name).read_bytes())
    text = shown("report", "--reports", str(tmp_path))
    assert "qlora_nf4" in text
    record = store.find(plan)
    assert record is not None
    assert record.problem is not None
    assert "1 line of its events cannot be read" in record.problem.message


def test_a_published_report_is_left_alone_by_the_next_one(store: RunStore, tmp_path: Path) -> None:
    report = ("report", "--reports", str(tmp_path))
    shown(*report, "--publish", str(tmp_path / "quick"))
    published = contents(tmp_path / "quick")
    store.write(record_of(planned("base_nf4")))
    for options, page in (((), "report.md"), (("--format", "json"), "report.json")):
        text = shown(*report, *options)
        written = tmp_path / "runs" / "quick" / page
        assert f"report: {written}" in text
        assert f"{tmp_path / 'quick'} holds a published report" in text
        assert "base_nf4" in written.read_text()
    assert contents(tmp_path / "quick") == published
    assert "base_nf4" in shown("list", "runs", "--reports", str(tmp_path))
    shown(*report, "--publish", str(tmp_path / "quick"))
    assert "base_nf4" in (tmp_path / "quick" / "report.md").read_text(), "asked for, it is replaced"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["no runs of suite quick", "harness run"]),
        (("--suite", ".."), ["no runs of suite .."]),
        (("--margin", "many"), ["--margin 'many'", "1% or 0.01"]),
        (("--max-loss", "1"), ["--max-loss '1'"]),
        (("--budget-memory", "12"), ["'12' is not an amount of memory with its unit", "24GiB"]),
        (("--publish", "x", "--format", "json"), ["--publish with --format json"]),
    ],
)
def test_a_mistake_is_explained_and_writes_nothing(
    tmp_path: Path, arguments: tuple[str, ...], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused("report", "--reports", "nowhere", *arguments)
    assert all(word in message for word in words), message
    assert not any(tmp_path.iterdir())
