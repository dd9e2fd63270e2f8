"""What is typed after --set and --seeds, and what is refused with the option and its place."""

from __future__ import annotations

import pytest

from harness.errors import InvalidFile, UnknownName, UserError
from harness.spec.overrides import parse_seeds, parse_setting, parse_settings
from tests.planned import planned


def test_a_list_is_the_askers_own() -> None:
    first = parse_setting("score.tasks=[1, 2]")
    first["score"]["tasks"].append(3)
    assert parse_setting("score.tasks=[1, 2]") == {"score": {"tasks": [1, 2]}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("32", 32),
        ("2e-4", 2e-4),
        ("true", True),
        ('["q_proj", "v_proj"]', ["q_proj", "v_proj"]),
        ("all-linear", "all-linear"),
        ('"16"', "16"),
        ("a=b", "a=b"),
        ("../x.jsonl", "../x.jsonl"),
    ],
)
def test_a_value_is_read_as_toml_and_otherwise_taken_as_text(text: str, value: object) -> None:
    variant, _ = parse_settings([f"adapter.x={text}"])
    assert variant == {"adapter": {"x": value}}


@pytest.mark.parametrize("setting", ["adapter.r", "=3", "adapter.=3", ".r=3", ""])
def test_what_is_not_key_equals_value_is_refused(setting: str) -> None:
    with pytest.raises(UserError, match="is not KEY=VALUE"):
        parse_settings([setting])


def test_an_unknown_section_gets_its_close_matches() -> None:
    with pytest.raises(UnknownName, match="did you mean training") as caught:
        parse_settings(["trainig.packing=true"])
    assert "--set trainig.packing=true" in str(caught.value)


def test_a_value_cannot_also_be_a_section() -> None:
    with pytest.raises(InvalidFile, match="r is a value, not a section"):
        parse_settings(["adapter.r=3", "adapter.r.x=4"])


def test_none_unsets_what_may_be_left_out() -> None:
    plan = planned("qlora_nf4", "budget.steps=none", "budget.tokens=4000")
    assert (plan.budget.steps, plan.budget.tokens) == (None, 4000)
    assert planned("base", "corpus.held_out_limit=none").corpus.held_out_limit is None
    assert planned("base", "method=none", "adapter=none").adapter is None


def test_none_stays_a_word_where_it_is_one_and_is_refused_where_nothing_may_be_left_out() -> None:
    plan = planned("qlora_nf4", "quantization.type=none", "adapter.bias=none")
    assert plan.quantization.type == "none"
    assert plan.adapter is not None
    assert plan.adapter.fields["bias"] == "none"
    with pytest.raises(InvalidFile, match=r"budget\.batch_size: .*'none'"):
        planned("qlora_nf4", "budget.batch_size=none")


@pytest.mark.parametrize(
    ("text", "seeds"), [("", ()), ("0", (0,)), ("3,1,3", (3, 1)), ("0..4", (0, 1, 2, 3, 4))]
)
def test_seeds_as_typed(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["4294967296", "5000000000", "5000000000..5000000001", "9" * 5000])
def test_a_seed_that_is_too_large_is_refused_with_the_limit(text: str) -> None:
    with pytest.raises(UserError, match="seeds below 4294967296"):
        parse_seeds(text)
    assert parse_seeds("4294967295") == (4294967295,)


@pytest.mark.parametrize("text", ["x", "1..", "4..0", "-1", "1.5", ",", "0..99999999999"])
def test_seeds_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--seeds"):
        parse_seeds(text)


@pytest.mark.parametrize("setting", ["suite.adapter.r=3", "suite=3", "suite.nonsense=1"])
def test_a_suite_has_no_such_section(setting: str) -> None:
    with pytest.raises(UnknownName, match="section of a suite"):
        parse_settings([setting])
