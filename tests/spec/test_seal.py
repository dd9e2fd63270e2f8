"""A sealed document shows any change; one without a seal is taken as it is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.spec.seal import sealed, unsealed

TEXT = json.dumps({"name": "otter", "weights": [1, 2.5, None]}, indent=1) + "\n"


@given(st.dictionaries(st.text(min_size=1), st.integers() | st.text(), min_size=1))
def test_what_was_sealed_is_unsealed_equal(data: dict[str, object]) -> None:
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    assert unsealed(sealed(text)) == (text, True)


def test_a_sealed_document_is_json_with_the_digest_as_its_first_key() -> None:
    first, *others = json.loads(sealed(TEXT))
    assert first == "digest"
    assert others == ["name", "weights"]


@pytest.mark.parametrize("place", range(80, len(sealed(TEXT)), 7))
def test_a_flipped_character_is_seen(place: int) -> None:
    text = sealed(TEXT)
    changed = text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]
    document, unchanged = unsealed(changed)
    assert not unchanged or '"digest"' in document


def test_a_line_that_is_added_or_lost_is_seen() -> None:
    lines = sealed(TEXT).splitlines(keepends=True)
    for changed in (lines[:3] + lines[4:], [*lines[:3], ' "more": 1,\n', *lines[3:]]):
        assert not unsealed("".join(changed))[1]


def test_older_documents_have_no_seal() -> None:
    assert unsealed(TEXT) == (TEXT, True)


def test_a_seal_that_is_damaged_stays_in_as_a_key_that_nobody_knows() -> None:
    damaged = sealed(TEXT).replace('"digest"', '"digesd"', 1)
    document, unchanged = unsealed(damaged)
    assert unchanged
    assert "digesd" in json.loads(document)
