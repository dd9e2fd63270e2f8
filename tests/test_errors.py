"""An error says what is wrong, where, what was expected and what to do next."""

from __future__ import annotations

import pickle

import pytest

from harness import errors
from harness.errors import (
    FetchError,
    HarnessError,
    InvalidFile,
    RunError,
    RunInUse,
    UnknownName,
    UserError,
)


def test_a_message_has_one_line_per_part_and_no_empty_ones() -> None:
    full = InvalidFile("wrong type", where="a.toml", expected="a number", hint="write 3")
    assert str(full).splitlines() == [
        "wrong type",
        "  where:    a.toml",
        "  expected: a number",
        "  try:      write 3",
    ]
    assert str(FetchError("no network")) == "no network"


def test_an_unknown_name_offers_close_matches_and_the_valid_names() -> None:
    message = str(UnknownName("variant", "qlora_nf5", ["qlora_nf4", "base"]))
    assert message.splitlines() == [
        "unknown variant 'qlora_nf5'",
        "  expected: one of base, qlora_nf4",
        "  try:      did you mean qlora_nf4?",
    ]


def test_a_name_that_holds_the_typed_word_is_offered_first() -> None:
    names = ["adalora", "delora", "lora_dora", "lora_dora_r64", "randlora"]
    message = str(UnknownName("variant", "dora", names))
    assert "did you mean lora_dora or lora_dora_r64 or delora?" in message


def test_an_unknown_name_far_from_all_others_gets_no_guess() -> None:
    assert "did you mean" not in str(UnknownName("suite", "zzz", ["quick"]))


def test_a_long_list_of_valid_names_is_counted_and_says_where_to_find_them() -> None:
    names = ["arc_easy", *(f"task_{i:04}" for i in range(1999))]
    message = str(UnknownName("task", "arc_eazy", names))
    assert "one of 2,000 names; 'harness list tasks' shows them" in message
    assert "did you mean arc_easy?" in message
    assert len(message) < 200
    assert "harness list" not in str(UnknownName("field", "x", names))


@pytest.mark.parametrize(
    ("kind", "code"), [(HarnessError, 1), (RunError, 1), (FetchError, 1), (UserError, 2)]
)
def test_only_the_users_mistakes_exit_with_two(kind: type[HarnessError], code: int) -> None:
    assert kind("x").exit_code == code


def test_one_root_catches_every_error_and_the_tree_is_drawn_in_the_docstring() -> None:
    kinds = [item for item in vars(errors).values() if isinstance(item, type)]
    own = [item for item in kinds if issubclass(item, Exception)]
    assert all(issubclass(item, HarnessError) for item in own)
    assert all(item.__name__ in (errors.__doc__ or "") for item in own)


@pytest.mark.parametrize(
    "error",
    [
        RunInUse("a process is running this plan", where="/runs/a", hint="wait"),
        UnknownName("variant", "lora_bf17", ["lora_bf16"], where="--variant"),
        UserError("wrong", where=1, expected="right"),
    ],
)
def test_errors_travel_between_processes_as_they_are(error: HarnessError) -> None:
    """Executors send them from where a plan was to be run."""
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)
