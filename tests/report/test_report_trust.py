"""A score is shown only where its items still give it."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.errors import InvalidFile
from harness.records.store import BrokenRun, RunStore, StoredRun, is_whole
from harness.report.pairing import read_table
from harness.report.trust import trusted
from harness.spec.digests import file_sha256
from harness.spec.storage import write_json
from tests.cli.terminal import harness
from tests.report.records import Made, build_from, write_run, write_runs


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run as older harnesses wrote it: without digests of its items."""
    return write_run(tmp_path / "runs", Made("lora_bf16"))


def found(folder: Path) -> StoredRun | BrokenRun:
    (only,) = trusted(RunStore(folder.parents[2]).scan())
    return only


def with_digests(folder: Path) -> None:
    """Write the record again, as it is written today."""
    stored = found(folder)
    assert isinstance(stored, StoredRun)
    scores = tuple(
        score.model_copy(update={"items_sha256": file_sha256(folder / str(score.items))})
        for score in stored.record.scores
    )
    write_json(folder / "record.json", stored.record.model_copy(update={"scores": scores}))


def change(path: Path, column: str, factor: float) -> None:
    table = pq.read_table(path)
    values = table[column].to_numpy() * factor
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values)), path)


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("column", ["numerator", "denominator"])
def test_items_that_give_another_value_are_refused(run: Path, column: str, new: bool) -> None:
    """Values times four once printed 2,141 beside a record of 264.7."""
    if new:
        with_digests(run)
    assert isinstance(found(run), StoredRun)
    path = min((run / "items").glob("*perplexity*.parquet"))
    change(path, column, 1.001)
    refused = found(run)
    assert isinstance(refused, BrokenRun)
    assert isinstance(refused.error, InvalidFile)
    assert refused.error.where == str(path)
    said = "have changed since" if new else "the record says"
    assert said in refused.error.what
    done = harness("report", "--suite", "quick", "--reports", str(run.parents[3]))
    assert done.code == 2
    assert said in done.stderr
    assert path.name in done.stderr


@pytest.mark.parametrize("seed", range(20))
def test_no_flipped_bit_of_items_goes_unseen(run: Path, seed: int) -> None:
    with_digests(run)
    chance = random.Random(seed)
    path = chance.choice(sorted((run / "items").iterdir()))
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    assert isinstance(found(run), BrokenRun)


def test_a_published_report_may_lie_without_items(run: Path) -> None:
    with_digests(run)
    for path in (run / "items").iterdir():
        path.unlink()
    stored = found(run)
    assert isinstance(stored, StoredRun)
    assert not all(is_whole(score, run) for score in stored.record.scores)


@pytest.mark.parametrize("values", [["a"] * 3, [1, 2, 3], [1.0, None, 2.0], [1.0, float("nan")]])
def test_numbers_that_are_none_are_not_read(tmp_path: Path, values: list[object]) -> None:
    path, rows = tmp_path / "items.parquet", len(values)
    names = pa.array(["x"] * rows)
    table = {"item": names, "cluster": names, "numerator": values, "denominator": [1.0] * rows}
    pq.write_table(pa.table(table), path)
    assert read_table(path) is None


def test_names_that_are_no_text_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    names = pa.array([b"\xb6\xff", b"\xb7\xff"]).cast(pa.string(), safe=False)
    ones = pa.array([1.0, 2.0])
    columns = {"item": names, "cluster": names, "numerator": ones, "denominator": ones}
    pq.write_table(pa.table(columns), path)
    assert read_table(path) is None


def test_a_reference_on_another_corpus_is_left_out_and_the_report_made(tmp_path: Path) -> None:
    runs = [Made("lora_bf16", corpus_sha256="0" * 64), Made("qlora_nf4"), Made("qlora_fp4")]
    write_runs(tmp_path, runs)
    report = build_from(tmp_path, reference="lora_bf16")
    (scoring, *_) = report.evidence.scorings
    assert scoring.excluded == {"lora_bf16": "another model, corpus or way to score"}
