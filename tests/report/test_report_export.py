"""Exports hold everything; published records hold no text of the data and rebuild the report."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.records.record import RunRecord
from harness.records.store import RunStore, StoredRun, is_whole
from harness.report.build import ReportRequest
from harness.report.export import export
from harness.report.publish import add_records, publish, publish_report, rebuild_report
from harness.spec.digests import file_sha256
from harness.spec.model import FolderSource
from harness.spec.plan import RunRequest
from harness.spec.storage import read_json, write_json
from tests.report.records import Made, build_from, write_run, write_runs

SECRET = "a sentence of somebody's conversation"


def stored(root: Path) -> list[StoredRun]:
    return [run for run in RunStore(root).scan() if isinstance(run, StoredRun)]


def test_exports_agree(seven_runs: Path) -> None:
    report = build_from(seven_runs)
    whole = json.loads(export(report, "json"))
    lines = list(csv.DictReader(io.StringIO(export(report, "csv").decode())))
    table = pq.read_table(io.BytesIO(export(report, "parquet")))
    assert len(lines) == len(table)
    runs = {(line["label"], line["seed"]) for line in lines}
    assert len(runs) == sum(len(row["runs"]) for row in whole["rows"])
    values = whole["scores"][0]["values"]
    assert set(values) == {row["label"] for row in whole["rows"]} - {"full_finetune"}
    failed = [line for line in lines if line["variant"] == "full_finetune"]
    assert {line["status"] for line in failed} == {"oom"}
    perplexity = [
        float(line["value"])
        for line in lines
        if line["name"] == "held_out.perplexity" and line["stage"] == "after"
    ]
    assert len(perplexity) == 15


def test_csv_text_is_no_formula(tmp_path: Path) -> None:
    write_run(tmp_path, Made("qlora_nf4", corpus_sha256="=1+1"))
    text = export(build_from(tmp_path), "csv").decode()
    cells = [cell for line in csv.reader(io.StringIO(text)) for cell in line]
    assert not [cell for cell in cells if cell[:1] in ("=", "@")]


def published_with_secrets(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "runs", Made("qlora_nf4", corpus_sha256="0" * 64))
    record = read_json(folder / "record.json", RunRecord)
    source = {"source": f"/home/me/{SECRET}/trees.jsonl"}
    corpus = record.plan.corpus.model_copy(update=source)
    generations = tuple(g.model_copy(update={"prompt": SECRET}) for g in record.generations[:1])
    score = record.scores[0].model_copy(update={"details": {"data": f"/home/me/{SECRET}/x"}})
    write_json(
        folder / "record.json",
        record.model_copy(
            update={
                "plan": record.plan.model_copy(update={"corpus": corpus}),
                "generations": generations + record.generations[1:],
                "scores": (score, *record.scores[1:]),
            }
        ),
    )
    path = folder / str(record.scores[0].items)
    table = pq.read_table(path)
    pq.write_table(table.append_column("text", pa.array([SECRET] * len(table))), path)
    write_run(tmp_path / "runs", Made("full_finetune", status="oom", hostile=SECRET))
    return publish(stored(tmp_path / "runs"), tmp_path / "report")


def test_published_records_hold_no_text(tmp_path: Path) -> None:
    root = published_with_secrets(tmp_path)
    files = [path for path in root.rglob("*") if path.is_file()]
    assert {path.name.rpartition(".")[2] for path in files} == {"json", "parquet"}
    for path in files:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            assert table.column_names == ["item", "cluster", "numerator", "denominator"]
            assert all(len(name) == 16 for name in table["item"].to_pylist())
        else:
            record = read_json(path, RunRecord)
            assert all(g.prompt != SECRET for g in record.generations)
            assert record.problem is None or record.problem.log_tail == ""
            assert "/home/me" not in path.read_text()
    assert len([path for path in files if path.suffix == ".json"]) == 2


def with_names(root: Path, made: Made, names: list[str]) -> StoredRun:
    """A run whose items of the choice task have other names."""
    folder = write_run(root, made)
    (run,) = (run for run in stored(root) if run.folder.path == folder)
    path = folder / next(str(score.items) for score in run.record.scores if "choice" in score.task)
    table = pq.read_table(path)
    names = (names * len(table))[: len(table)]
    for column in ("item", "cluster"):
        place = table.column_names.index(column)
        table = table.set_column(place, column, pa.array(names))
    pq.write_table(table, path)
    return run


def names_of(root: Path) -> list[set[str]]:
    """Names of the choice task's items, of every published run."""
    found = sorted(root.rglob("oasst_choice*.parquet"))
    return [set(pq.read_table(path)["item"].to_pylist()) for path in found]


POSITIONS = [str(number) for number in range(28)]


@pytest.mark.parametrize(
    ("names", "stays"),
    [(POSITIONS, True), (POSITIONS[::-1], True), (["4711", "12", "88"], False), (["5"], False)],
)
def test_published_items_are_numbered_only_by_their_place(
    tmp_path: Path, names: list[str], stays: bool
) -> None:
    """Numbers of a person's own data may name somebody."""
    run = with_names(tmp_path / "runs", Made("qlora_nf4"), names)
    (found,) = names_of(publish([run], tmp_path / "report"))
    assert (found == set(names)) is stays
    assert stays or {len(name) for name in found} == {16}


@pytest.mark.parametrize("hashed", [True, False])
def test_runs_join_published_ones_in_the_names_of_their_items(tmp_path: Path, hashed: bool) -> None:
    """Folders of older harnesses hold hashes of places too; items must still be paired."""
    runs = [with_names(tmp_path / "runs", Made("qlora_nf4", seed=n), POSITIONS) for n in range(2)]
    root = publish(runs[:1], tmp_path / "report")
    if hashed:
        (path,) = root.rglob("oasst_choice*.parquet")
        table = pq.read_table(path)
        for place, column in enumerate(("item", "cluster")):
            plain = table[column].to_pylist()
            names = [hashlib.sha256(name.encode()).hexdigest()[:16] for name in plain]
            table = table.set_column(place, column, pa.array(names))
        pq.write_table(table, path)
    add_records(runs[1:], tmp_path / "report")
    one, two = names_of(root)
    assert one == two
    assert (one == set(POSITIONS)) is not hashed


def test_published_records_give_the_same_numbers(seven_runs: Path, tmp_path: Path) -> None:
    root = publish(stored(seven_runs), tmp_path)
    before, after = build_from(seven_runs), build_from(root)
    changed = {
        one.key for one, two in zip(before.sections, after.sections, strict=True) if one != two
    }
    assert changed <= {"provenance", "variants"}, "only logs and adapters are gone"


def test_a_published_report_can_be_rebuilt_byte_by_byte(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", [Made("base"), Made("qlora_nf4", log_ratio=-0.1)])
    request = ReportRequest(suite="quick", margin=0.02)
    first = publish_report(stored(tmp_path / "runs"), request, tmp_path / "example")
    again = rebuild_report(tmp_path / "example", tmp_path / "again")
    assert first.parent == tmp_path / "example"
    for path in again.parent.rglob("*"):
        if path.is_file():
            twin = tmp_path / "example" / path.relative_to(again.parent)
            assert path.read_bytes() == twin.read_bytes()


def test_published_items_have_the_digest_of_what_is_published(tmp_path: Path) -> None:
    """Names become hashes, so the digest that the run took is not that of the published file."""
    write_runs(tmp_path / "runs", [Made("base"), Made("qlora_nf4", log_ratio=-0.1)])
    for run in stored(tmp_path / "runs"):
        scores = tuple(
            score.model_copy(update={"items_sha256": file_sha256(run.folder.path / score.items)})
            if score.items
            else score
            for score in run.record.scores
        )
        write_json(run.folder.record, run.record.model_copy(update={"scores": scores}))
    request = ReportRequest(suite="quick")
    publish_report(stored(tmp_path / "runs"), request, tmp_path / "example")
    found = stored(tmp_path / "example" / "records")
    assert all(is_whole(score, run.folder.path) for run in found for score in run.record.scores)


def test_publishing_again_replaces(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", [Made("base"), Made("qlora_nf4")])
    publish(stored(tmp_path / "runs"), tmp_path)
    root = publish(stored(tmp_path / "runs")[:1], tmp_path)
    assert len(list(root.rglob("record.json"))) == 1


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("cannot read /home/me/data/x.json here", "cannot read x.json here"),
        ("rate 3/4 of a/b", "rate 3/4 of a/b"),
        ("../shared/data/x.gz", "../shared/data/x.gz"),
        (r"C:\Users\me\x.txt", "x.txt"),
    ],
)
def test_absolute_paths_are_cut(text: str, cut: str) -> None:
    from harness.report.publish import cut_paths

    assert cut_paths(text) == cut


def test_published_requests_hold_no_absolute_path(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", Made("qlora_nf4"))
    record = read_json(folder / "record.json", RunRecord)
    typed = (f"corpus.source=/home/me/{SECRET}/trees.jsonl", "model='/home/me/x.toml'")
    request = RunRequest(
        variant="/home/me/mine.toml",
        suite="../suites/quick.toml",
        settings=(*typed, "corpus.source=../data/x.gz", "adapter.r=8"),
    )
    plan = record.plan.model_copy(update={"request": request})
    write_json(folder / "record.json", record.model_copy(update={"plan": plan}))
    (run,) = stored(publish(stored(tmp_path / "runs"), tmp_path / "report"))
    assert run.record.plan.request == RunRequest(
        variant="mine.toml",
        suite="../suites/quick.toml",
        settings=(
            "corpus.source=trees.jsonl",
            "model=x.toml",
            "corpus.source=../data/x.gz",
            "adapter.r=8",
        ),
    )


def test_a_published_local_model_is_named_without_its_folder(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", Made("qlora_nf4"))
    record = read_json(folder / "record.json", RunRecord)
    source = FolderSource(kind="folder", path=f"/home/me/{SECRET}/tiny")
    model = record.plan.model.model_copy(update={"source": source})
    plan = record.plan.model_copy(update={"model": model, "model_sha256": "0" * 64})
    store = RunStore(tmp_path / "local")
    store.write(record.model_copy(update={"plan": plan, "fingerprint": plan.fingerprint}))
    (run,) = stored(publish(stored(tmp_path / "local"), tmp_path / "report"))
    assert run.record.plan.model.source.path == "tiny"
    assert run.record.plan.fingerprint == plan.fingerprint
