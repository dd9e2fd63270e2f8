"""Names of items in published records: hashes that can be paired with the names they came from."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from harness.report.item_names import alike, are_places, for_publishing, hashed, were_published


def test_numbers_stay_only_where_they_are_places() -> None:
    assert are_places(["2", "0", "1"])
    assert not are_places(["0", "2"])
    assert for_publishing([1, 0], keep_numbers=True) == ["1", "0"]
    assert for_publishing(["1", "a name"], keep_numbers=True) == ["1", hashed("a name")]
    assert for_publishing(["1"], keep_numbers=False) == [hashed("1")]


def test_a_name_that_looks_like_a_hash_is_somebody_s_name() -> None:
    assert for_publishing(["4111111111111111"], keep_numbers=True) == [hashed("4111111111111111")]


def test_names_become_hashes_only_beside_published_ones() -> None:
    names, hashes = ("a", "b"), (hashed("b"), hashed("a"))
    assert alike([names, ("a",)], [False, False]) == [names, ("a",)]
    assert alike([names, hashes], [False, True]) == [(hashed("a"), hashed("b")), hashes]
    made = alike([names, hashes, names], [False, True, False])
    assert made[0] is made[2]


def test_places_stay_beside_published_places_and_become_hashes_beside_hashes() -> None:
    places, older = ("0", "1"), (hashed("0"), hashed("1"))
    assert alike([(0, 1), places], [False, True]) == [places, places]
    assert alike([places, older, places], [True, True, False]) == [older, older, older]


def test_published_files_are_known_by_how_they_are_written(tmp_path: Path) -> None:
    table = pa.table({"item": ["a"]})
    pq.write_table(table, tmp_path / "own.parquet")
    pq.write_table(table, tmp_path / "published.parquet", store_schema=False)
    assert not were_published(tmp_path / "own.parquet")
    assert were_published(tmp_path / "published.parquet")
    assert not were_published(tmp_path / "nothing.parquet")
