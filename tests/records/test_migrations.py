"""Old records keep loading; records of a newer harness ask for one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from harness.errors import InvalidFile
from harness.records.record import RunRecord
from harness.records.store import RunLine
from harness.spec.schema import Migration, Versioned
from harness.spec.storage import read_json

FIRST = Path(__file__).with_name("record-version-1.json")


def with_unit(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "unit": "K"}


def with_kelvin(data: dict[str, Any]) -> dict[str, Any]:
    return {"kelvin": data["degrees"] + (273 if data["unit"] == "C" else 0)}


class Reading(Versioned):
    """A document in its third version."""

    SCHEMA_VERSION: ClassVar[int] = 3
    MIGRATIONS: ClassVar[Mapping[int, Migration]] = {1: with_unit, 2: with_kelvin}
    schema_version: int = 3
    kelvin: int


class Log(Versioned):
    """A document in its first version, with others inside."""

    schema_version: int = 1
    first: Reading
    last: Reading | None = None
    others: tuple[Reading, ...] = ()


def written(tmp_path: Path, data: object) -> Path:
    path = tmp_path / "document.json"
    path.write_text(json.dumps(data))
    return path


OLD = (
    {"schema_version": 1, "degrees": 20},
    {"schema_version": 2, "degrees": -253, "unit": "C"},
    {"schema_version": 3, "kelvin": 20},
)


@pytest.mark.parametrize("data", OLD)
def test_every_older_version_is_read_as_today_s(tmp_path: Path, data: dict[str, Any]) -> None:
    assert read_json(written(tmp_path, data), Reading) == Reading(kelvin=20)


@pytest.mark.parametrize("data", OLD)
def test_a_document_inside_another_is_migrated_too(tmp_path: Path, data: dict[str, Any]) -> None:
    now = Reading(kelvin=20)
    path = written(tmp_path, {"schema_version": 1, "first": data, "last": data})
    assert read_json(path, Log) == Log(first=now, last=now)
    whole = {"schema_version": 1, "first": now.model_dump(), "others": [now.model_dump(), data]}
    assert read_json(written(tmp_path, whole), Log) == Log(first=now, others=(now, now))


@pytest.mark.parametrize(
    ("version", "hint"), [(4, "newer harness"), (0, "again"), ("3", "again"), (None, "again")]
)
def test_another_version_is_refused_with_what_to_do(
    tmp_path: Path, version: object, hint: str
) -> None:
    for data, kind in (
        ({"schema_version": version, "kelvin": 20}, Reading),
        ({"schema_version": 1, "first": {"schema_version": version, "kelvin": 20}}, Log),
        (
            {
                "schema_version": 1,
                "first": Reading(kelvin=20).model_dump(),
                "others": [{"schema_version": version, "kelvin": 20}],
            },
            Log,
        ),
    ):
        with pytest.raises(InvalidFile, match=hint) as caught:
            read_json(written(tmp_path, data), kind)
        assert f"Reading of schema version {version}" in str(caught.value)


def test_what_a_migration_makes_must_fit_today_s_type(tmp_path: Path) -> None:
    path = written(tmp_path, {"schema_version": 2, "degrees": 1.5, "unit": "K"})
    with pytest.raises(InvalidFile, match="kelvin"):
        read_json(path, Reading)


def test_a_record_of_the_first_version_is_read_whole() -> None:
    record = read_json(FIRST, RunRecord)
    assert (record.plan.variant, record.plan.suite, record.status) == ("qlora_nf4", "quick", "ok")
    assert record.training is not None
    assert len(record.training.losses) == 2
    assert {score.metric for score in record.scores} == {"perplexity", "acc"}
    assert record.plan.fingerprint == record.fingerprint, "it is found again by its plan"
    line = read_json(FIRST, RunLine)
    assert (line.plan.variant, line.status, line.seconds) == ("qlora_nf4", "ok", record.seconds)


def test_the_committed_record_is_of_the_first_version() -> None:
    data = json.loads(FIRST.read_text())
    assert (data["schema_version"], data["plan"]["schema_version"]) == (1, 1)
