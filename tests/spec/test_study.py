"""A study states its question; what it may not say is refused by key."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InvalidFile, UnknownName
from harness.spec.registry import load_study, study_names
from harness.studies.arms import compare_what
from harness.studies.search import grid
from tests.planned import CPU

SHIPPED = ["forgetting", "learning_rate", "length", "lora_or_full", "methods"]


@pytest.mark.parametrize("name", study_names())
def test_every_shipped_study_can_be_planned(name: str) -> None:
    study = load_study(name)
    found = compare_what(study, CPU)
    assert len(found.arms) > 1
    assert found.reference in found.by_label
    fractions = {arm.plan.corpus.validation_fraction for arm in found.arms}
    assert fractions == {0.15}, "the same trees are set aside for all"


def test_all_that_were_promised_are_shipped() -> None:
    assert set(study_names()) >= {*SHIPPED, "quantization", "rank"}


def test_a_length_study_counts_tokens_and_not_steps() -> None:
    arms = compare_what(load_study("length"), CPU).arms
    assert {arm.plan.budget.tokens for arm in arms} == {20000}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("marign = 0.01", "did you mean margin"),
        ("margin = 0", "margin"),
        ("variants = []", "variants"),
        ("[seeds]\nleast = 1", "seeds.least"),
        ("[seeds]\nleast = 5\nmost = 3", "least = 5 is over most = 3"),
        ('[seeds]\nstop = "soon"', "seeds.stop"),
        ("[tune]\nfactor = 1.0", "tune.factor"),
        ('[tune]\nsplit = "held_out"', "tune.split: unknown key"),
        ("[budget]\nruns = 0", "budget.runs"),
    ],
)
def test_a_mistake_is_named_by_its_key(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    head = 'description = "d"\nquestion = "q?"\nreference = "base"\n'
    given = "" if line.startswith("variants") else 'variants = ["base"]\n'
    path.write_text(head + given + line + "\n")
    with pytest.raises(InvalidFile) as caught:
        load_study(str(path))
    assert words in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_an_unknown_study_gets_its_close_matches() -> None:
    with pytest.raises(UnknownName, match="did you mean quantization"):
        load_study("quantisation")


def test_what_is_set_makes_another_study() -> None:
    changed = load_study("rank", {"tune": {"trials": 3}})
    assert (changed.name, changed.tune.trials) == ("rank+tune.trials=3", 3)
    places = grid(2e-4, changed.tune)
    assert list(places) == [-1, 0, 1]
    assert places[0] == 2e-4
