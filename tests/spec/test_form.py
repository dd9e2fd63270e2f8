"""Forms of a result are read from their names, with the names that people give them."""

from __future__ import annotations

import pytest

from harness.errors import UnknownName, UserError
from harness.spec.form import form_names, parse_form
from harness.spec.schemes import scheme_names


@pytest.mark.parametrize(
    ("text", "name", "merges"),
    [
        ("adapter", "training", False),
        ("16bit", "16bit", False),
        ("merged", "merged", True),
        ("nf4_again", "merged_4bit", True),
        ("merged_4bit", "merged_4bit", True),
        ("nf4_again:double=true", "nf4_again:double=true", True),
        ("int8_again", "int8_again", True),
        ("hqq_again:group_size=32,bits=3", "hqq_again:bits=3,group_size=32", True),
        ("gguf:Q8_0", "gguf:Q8_0", True),
    ],
)
def test_a_form_has_one_name_in_records(text: str, name: str, merges: bool) -> None:
    found = parse_form(text)
    assert (found.name, found.merges) == (name, merges)
    assert parse_form(found.name) == found


@pytest.mark.parametrize("text", ["nf4_again", "merged_4bit", "hqq_again:group_size=32,bits=3"])
def test_a_form_is_called_as_it_was_typed(text: str) -> None:
    assert parse_form(text).asked == text
    assert parse_form("training").asked == "adapter"


def test_every_name_that_is_offered_can_be_read() -> None:
    for name in form_names():
        assert parse_form(name.replace("TYPE", "Q4_K_M"))


def test_gguf_asks_for_its_type_and_no_other_form_takes_one() -> None:
    with pytest.raises(UserError) as caught:
        parse_form("gguf", where="--form")
    assert "gguf:TYPE, one of " in str(caught.value)
    assert "--form" in str(caught.value)
    for text in ("merged:Q8_0", "hqq_again:3", "hqq_again:bits=", "hqq_again:type=nf4"):
        with pytest.raises(UserError, match="not a form"):
            parse_form(text)


def test_every_scheme_is_a_form_and_one_that_is_not_installed_can_be_read() -> None:
    assert {f"{name}_again" for name in scheme_names()} - {"none_again"} <= set(form_names())
    assert parse_form("somebodys_again:depth=2").name == "somebodys_again:depth=2"
    with pytest.raises(UnknownName):
        parse_form("_again")


def test_a_misspelt_form_and_a_misspelt_type_get_close_matches() -> None:
    with pytest.raises(UnknownName, match="mergd") as form:
        parse_form("mergd")
    assert "merged" in str(form.value)
    with pytest.raises(UnknownName, match="GGUF type") as kind:
        parse_form("gguf:Q8")
    assert "Q8_0" in str(kind.value)
