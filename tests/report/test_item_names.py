"""Names of items in published records: hashes that can be paired with the names they came from."""

from __future__ import annotations

from harness.report.item_names import alike, are_places, hashed, published


def test_a_hash_stays_as_it_is() -> None:
    name = hashed("a message's id")
    assert len(name) == 16
    assert hashed(name) == name
    assert hashed("another") != name


def test_numbers_stay_only_where_they_are_places() -> None:
    assert are_places(["2", "0", "1"])
    assert not are_places(["0", "2"])
    assert published([1, 0], keep_numbers=True) == ["1", "0"]
    assert published(["1", "a name"], keep_numbers=True) == ["1", hashed("a name")]
    assert published(["1"], keep_numbers=False) == [hashed("1")]


def test_names_become_hashes_only_beside_hashes() -> None:
    names, hashes = ("a", "b"), (hashed("b"), hashed("a"))
    assert alike([names, ("a",)]) == [names, ("a",)]
    assert alike([names, hashes]) == [(hashed("a"), hashed("b")), hashes]
    made = alike([names, hashes, names])
    assert made[0] is made[2]
