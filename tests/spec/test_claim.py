"""Claims as data: every file that ships is whole, and mistakes are named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.errors import InvalidFile, UnknownName
from harness.report.settings import flatten
from harness.spec.claim import BeyondCheck, FormCheck, holds
from harness.spec.derived_names import derived_name
from harness.spec.form import parse_form
from harness.spec.overrides import parse_settings
from harness.spec.registry import claim_names, load_claim, load_study, variant_names
from harness.spec.study import Contender
from tests.planned import planned

WRITTEN = """
sentence = "A is better than B"

[source]
title = "A paper"
link = "arXiv:0000.00000"

[[checks]]
kind = "score"
variant = ["lora_bf16"]
against = ["qlora_nf4"]
says = "better"
"""


@pytest.mark.parametrize("name", claim_names())
def test_a_claim_that_ships_names_variants_that_exist(name: str) -> None:
    claim = load_claim(name)
    assert claim.sentence[0].isupper()
    assert claim.source.link
    for check in claim.checks:
        if isinstance(check, BeyondCheck):
            assert check.why
            continue
        sides = [check.variant] if isinstance(check, FormCheck) else [check.variant, check.against]
        for names in sides:
            assert any(one.partition("+")[0] in variant_names() for one in names), names
        if isinstance(check, FormCheck):
            assert parse_form(check.form)


@pytest.mark.parametrize("name", claim_names())
def test_the_conditions_of_a_claim_name_settings_that_plans_have(name: str) -> None:
    """A condition on a key that no plan has never holds, and the claim is out of reach for ever."""
    for check in load_claim(name).checks:
        for condition in getattr(check, "conditions", ()):
            known = flatten(planned(check.variant[0]).model_dump(mode="json"))
            assert re.split(r"\s*(?:!=|>=|<=|=)\s*", condition)[0] in known, condition


def test_all_claims_that_the_harness_was_asked_for_ship() -> None:
    assert len(claim_names()) >= 25


def test_a_file_of_ones_own_is_a_claim(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(WRITTEN)
    assert load_claim(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('says = "better"', 'says = "nicer"', "nicer"),
        ('kind = "score"', 'kind = "taste"', "taste"),
        ("[[checks]]", "[[tests]]", "tests"),
        ('says = "better"', 'says = "better"\nconditions = ["batch is large"]', "no condition"),
    ],
)
def test_a_mistake_is_named_with_its_file(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(WRITTEN.replace(old, new))
    with pytest.raises(InvalidFile, match=said) as caught:
        load_claim(str(path))
    assert "mine.toml" in str(caught.value)


def test_an_unknown_name_gets_close_ones() -> None:
    with pytest.raises(UnknownName, match="nf4_beats_fp4"):
        load_claim("nf4_beats_fp5")


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ("budget.batch_size >= 64", True),
        ("budget.batch_size <= 64", False),
        ("device.kind = cuda", True),
        ("device.kind != cuda", False),
        ("training.packing = true", True),
        ("training.unheard >= 1", False),
    ],
)
def test_conditions_read_settings(condition: str, met: bool) -> None:
    settings = {"budget.batch_size": 128, "device.kind": "cuda", "training.packing": True}
    assert holds(condition, settings) is met


ELSEWHERE = {"loftq"}  # needs a GPU, where a study adds it


@pytest.mark.parametrize("name", claim_names())
def test_the_folklore_study_runs_what_claims_compare(name: str) -> None:
    study = load_study("folklore")
    labels = {entry if isinstance(entry, str) else label_of(entry) for entry in study.variants}
    assert len(labels) >= 25
    for check in load_claim(name).checks:
        if isinstance(check, BeyondCheck) or name in ELSEWHERE:
            continue
        sides = [check.variant] if isinstance(check, FormCheck) else [check.variant, check.against]
        for names in sides:
            assert labels & set(names), f"none of {names} is in the study"


def label_of(entry: Contender) -> str:
    """The name that a study gives a variant with settings."""
    overrides, _ = parse_settings(f"{key}={json.dumps(v)}" for key, v in entry.settings.items())
    return derived_name(entry.variant, overrides)
