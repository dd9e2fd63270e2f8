"""A changed variant or suite has a name that says how, and that is one folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.spec.derived_names import changes_of, long_suite_name
from harness.spec.overrides import parse_settings
from harness.spec.registry import (
    load_suite,
    load_variant,
)
from harness.spec.suite import Suite


def quick(**overrides: object) -> Suite:
    return load_suite("quick", overrides)


def test_settings_derive_a_name_that_tells_what_was_set() -> None:
    variant, suite = parse_settings(["training.sequence_length=1024", "adapter.r=32"])
    assert suite == {}
    made = load_variant("qlora_nf4", quick(), variant)
    assert made.name == "qlora_nf4+adapter.r=32+training.sequence_length=1024"


def test_numbers_that_differ_have_names_that_differ() -> None:
    values = [1e30, 1e-30, -1, 1, -0.5, 0.5, 1e16, 1e-16]
    names = {tuple(changes_of({"adapter": {"scale": value}})) for value in values}
    assert len(names) == len(values)
    assert changes_of({"a": 1e30}) == ["a=1e30"]
    assert changes_of({"a": -1}) == ["a=-1"]


def test_a_long_list_of_settings_still_makes_a_name_that_a_folder_can_have() -> None:
    settings = [f"score.data_folder={'x' * 100}", f"corpus.source={'y' * 100}", "budget.steps=3"]
    one = load_suite("quick", parse_settings(settings)[1]).name
    two = load_suite("quick", parse_settings([*settings[:2], "budget.steps=4"])[1]).name
    assert len(one) <= 200
    assert one != two


def test_a_changed_suite_is_named_by_a_short_digest_in_which_a_path_is_its_last_part() -> None:
    _, far = parse_settings(["corpus.source=../shared/data/trees.jsonl.gz"])
    _, near = parse_settings(["corpus.source=trees.jsonl.gz"])
    _, other = parse_settings(["corpus.source=others.jsonl.gz"])
    name = load_suite("quick", far).name
    assert re.fullmatch("quick@[0-9a-f]{6}", name)
    assert load_suite("quick", near).name == name
    assert load_suite("quick", other).name != name
    assert long_suite_name("quick", far) == "quick+corpus.source=trees.jsonl.gz"


@pytest.mark.parametrize("value", ["..", "../..", "/", "a/../../b", f"hub:a/b@{'0' * 40}", "a\\b"])
def test_no_setting_leads_out_of_the_store(value: str) -> None:
    _, suite = parse_settings([f"corpus.source={value}"])
    name = load_suite("quick", suite).name
    assert Path(name).name == name


@given(value=st.text(max_size=300))
def test_whatever_is_set_the_derived_name_is_one_folder(value: str) -> None:
    name = load_suite("quick", {"corpus": {"source": value}}).name
    assert Path(name).name == name
    assert len(name.encode()) <= 200


def test_seeds_make_no_other_suite() -> None:
    assert quick(seeds=[1, 2]).name == "quick"
    assert quick(seeds=[1, 2]).seeds == (1, 2)
