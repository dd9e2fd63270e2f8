"""The store finds every run below its folder and names the ones it cannot read."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from harness.errors import InvalidFile, StorageError
from harness.records.record import Census, CensusRow, Score
from harness.records.store import BrokenRun, RunStore, StoredRun
from tests.planned import planned
from tests.store_records import record_of


def score(metric: str, value: float, stage: str) -> Score:
    return Score(
        task="perplexity",
        metric=metric,
        stage=stage,  # type: ignore[arg-type]
        value=value,
        standard_error=None,
        n=3,
        unit="perplexity",
        direction="lower",
    )


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "reports" / "runs")


def test_a_store_need_not_exist_to_be_empty(store: RunStore) -> None:
    assert list(store.scan()) == []
    assert list(store.scan("quick")) == []
    assert store.find(planned()) is None


def test_a_written_record_is_found_again_by_its_plan_alone(store: RunStore) -> None:
    record = record_of(planned())
    path = store.write(record)
    assert path == store.folder(planned()).record
    assert store.find(planned()) == record
    assert store.find(planned(seed=1)) is None
    assert store.find(planned("qlora_nf4", "adapter.r=3")) is None


def test_a_plan_asked_for_in_other_words_finds_the_record(store: RunStore) -> None:
    record = record_of(planned("qlora_nf4", "adapter.r=3", "budget.steps=2"))
    store.write(record)
    assert store.find(planned("qlora_nf4", "budget.steps = 2", "adapter.r=3")) == record


def test_runs_come_in_the_order_of_their_names(store: RunStore) -> None:
    for variant, seed in [("qlora_nf4", 1), ("base", 0), ("qlora_nf4", 0)]:
        store.write(record_of(planned(variant, seed=seed)))
    found = [(run.record.plan.variant, run.record.plan.seed) for run in store.scan()]
    assert found == [("base", 0), ("qlora_nf4", 0), ("qlora_nf4", 1)]


def test_a_scan_of_one_suite_leaves_others_out(store: RunStore) -> None:
    store.write(record_of(planned()))
    store.write(record_of(planned("qlora_nf4", "budget.steps=3")))
    assert len(list(store.scan())) == 2
    assert [run.record.plan.suite for run in store.scan("quick")] == ["quick"]


@pytest.mark.parametrize("suite", ["..", "../runs", "/tmp", ".", ".base"])
def test_a_scan_never_leaves_the_store(store: RunStore, suite: str) -> None:
    store.write(record_of(planned()))
    assert list(store.scan(suite)) == []
    assert store.suites() == ["quick"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[: len(text) // 2], "not a whole JSON document"),
        (lambda text: text[:0], "not a whole JSON document"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 0'), "version 0"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 9'), "version 9"),
        (lambda text: text.replace('"status": "ok"', '"status": "fine"'), "not a valid run record"),
        (lambda text: text.replace('"seed": 0', '"seed": "0"'), "not a valid run record"),
        (
            lambda text: text.replace('"suite": "quick"', '"suite": "../x"'),
            "not a valid run record",
        ),
    ],
)
def test_a_damaged_record_is_named_and_hides_no_other(
    store: RunStore, damage: object, reason: str
) -> None:
    store.write(record_of(planned("base")))
    path = store.write(record_of(planned("qlora_nf4")))
    lines = path.read_text().splitlines(keepends=True)
    unsealed = "".join(line for line in lines if not line.startswith(' "digest"'))
    path.write_text(damage(unsealed))  # type: ignore[operator]
    whole, broken = store.scan()
    assert isinstance(whole, StoredRun)
    assert isinstance(broken, BrokenRun)
    assert isinstance(broken.error, InvalidFile)
    assert reason in str(broken.error)
    assert str(path) in str(broken.error)
    assert store.find(planned("qlora_nf4")) is None, "a later run must not trust it"


def test_a_record_moved_into_the_wrong_folder_is_not_trusted(store: RunStore) -> None:
    path = store.write(record_of(planned("base")))
    wrong = store.folder(planned("qlora_nf4")).record
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(path.read_bytes())
    assert store.find(planned("qlora_nf4")) is None


def test_a_folder_that_only_started_is_no_run(store: RunStore) -> None:
    folder = store.folder(planned())
    folder.path.mkdir(parents=True)
    folder.plan.write_text(planned().model_dump_json())
    assert list(store.scan()) == []


def test_a_store_in_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file is in the way")
    with pytest.raises(StorageError, match="cannot write"):
        RunStore(tmp_path / "runs").write(record_of(planned()))


def test_a_score_is_found_by_task_metric_stage_and_precision() -> None:
    scores = (score("perplexity", 8.8, "before"), score("perplexity", 7.3, "after"))
    record = record_of(planned(), scores=scores)
    after = record.score("perplexity", "perplexity")
    before = record.score("perplexity", "perplexity", stage="before")
    assert after is not None
    assert before is not None
    assert (before.value, after.value) == (8.8, 7.3)
    assert record.score("perplexity", "perplexity", precision="merged") is None


def test_a_census_adds_up_its_rows() -> None:
    rows = (
        CensusRow(dtype="uint8", quantization="nf4", trainable=False, elements=128, bytes=68),
        CensusRow(dtype="float32", quantization="none", trainable=True, elements=8, bytes=32),
    )
    census = Census(rows=rows)
    assert (census.trainable, census.total, census.weight_bytes) == (8, 136, 100)


def test_unknown_numbers_are_null_in_the_file(store: RunStore) -> None:
    path = store.write(record_of(planned()))
    data = json.loads(path.read_text())
    assert data["adapter_bytes"] is None
    assert data["census"] is None
    assert data["training"] is None


@pytest.mark.parametrize("seed", range(60))
def test_no_flipped_bit_of_a_record_goes_unseen(store: RunStore, seed: int) -> None:
    """Whatever is read, in full or for a listing, is what was written, or is refused."""
    record, chance = record_of(planned("base")), random.Random(seed)
    path = store.write(record)
    (line,) = store.lines()
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    (found,) = store.scan()
    assert isinstance(found, BrokenRun) or found.record == record
    (listed,) = store.lines()
    assert isinstance(listed, BrokenRun) or listed == line


def test_an_edited_record_is_refused_and_an_older_one_without_a_digest_read(
    store: RunStore,
) -> None:
    path = store.write(record_of(planned("base")))
    text = path.read_text()
    seconds = next(line for line in text.splitlines() if '"seconds"' in line)
    path.write_text(text.replace(seconds, seconds.replace('"seconds": ', '"seconds": 9')))
    (found,) = store.scan()
    assert isinstance(found, BrokenRun)
    assert "changed since it was written" in str(found.error)
    path.write_text(re.sub(' "digest": "[0-9a-f]+",\n', "", text))
    assert isinstance(next(iter(store.scan())), StoredRun)
    path.write_text(text, newline="\r\n")
    assert isinstance(next(iter(store.scan())), StoredRun), "a checkout may change line ends"


def test_a_record_nested_very_deeply_is_named(store: RunStore) -> None:
    path = store.write(record_of(planned("base")))
    path.write_text("[" * 200_000 + "]" * 200_000)
    (found,) = store.scan()
    assert isinstance(found, BrokenRun)
    assert isinstance(found.error, InvalidFile)


@pytest.mark.parametrize("value", [-5.0, 0.0])
def test_a_perplexity_that_cannot_be_is_refused(value: float) -> None:
    fields = {"task": "held_out", "metric": "perplexity", "stage": "after", "unit": "1"}
    fields |= {"standard_error": None, "n": 3, "direction": "lower", "transform": "exp"}
    with pytest.raises(ValidationError, match="cannot be"):
        Score.model_validate({**fields, "value": value})
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Score.model_validate({**fields, "value": 5.0, "standard_error": -1.0})
