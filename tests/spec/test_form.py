"""Forms of a result are read from their names, with the names that people give them."""

from __future__ import annotations

import pytest

from harness.errors import UnknownName, UserError
from harness.spec.form import form_names, parse_form


@pytest.mark.parametrize(
    ("text", "name", "merges"),
    [
        ("adapter", "training", False),
        ("16bit", "16bit", False),
        ("merged", "merged", True),
        ("nf4_again", "merged_4bit", True),
        ("gguf:Q8_0", "gguf:Q8_0", True),
    ],
)
def test_a_form_has_one_name_in_records(text: str, name: str, merges: bool) -> None:
    found = parse_form(text)
    assert (found.name, found.merges) == (name, merges)
    assert parse_form(found.name) == found


def test_every_name_that_is_offered_can_be_read() -> None:
    for name in form_names():
        assert parse_form(name.replace("TYPE", "Q4_K_M"))


def test_gguf_asks_for_its_type_and_no_other_form_takes_one() -> None:
    with pytest.raises(UserError) as caught:
        parse_form("gguf", where="--form")
    assert "gguf:TYPE, one of " in str(caught.value)
    assert "--form" in str(caught.value)
    with pytest.raises(UserError, match="not a form"):
        parse_form("merged:Q8_0")


def test_a_misspelt_form_and_a_misspelt_type_get_close_matches() -> None:
    with pytest.raises(UnknownName, match="mergd") as form:
        parse_form("mergd")
    assert "merged" in str(form.value)
    with pytest.raises(UnknownName, match="GGUF type") as kind:
        parse_form("gguf:Q8")
    assert "Q8_0" in str(kind.value)
