"""A suite states model, corpus, budget, scores and seeds; each source of weights is checked."""

from __future__ import annotations

import pytest

from harness.errors import InvalidFile
from harness.spec.model import Model, WheelSource
from harness.spec.schema import parse
from harness.spec.suite import ScoreSpec, Suite

MODEL = {"name": "m", "description": "d", "license": "MIT"}


def suite(**written: object) -> Suite:
    data = {"name": "s", "description": "d", "model": "m", "budget": {"steps": 1}, **written}
    return parse(Suite, data, where="s.toml")


@pytest.mark.parametrize("budget", [{}, {"steps": 1, "tokens": 100}, {"batch_size": 4}])
def test_a_budget_is_steps_or_tokens_and_never_both(budget: dict) -> None:
    with pytest.raises(InvalidFile, match="exactly one of steps and tokens"):
        suite(budget=budget)


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ({"seeds": []}, "seeds"),
        ({"seeds": [-1]}, "seeds.0"),
        ({"corpus": {"policy": "worst_path"}}, "corpus.policy"),
        ({"corpus": {"held_out_fraction": 1.0}}, "corpus.held_out_fraction"),
        ({"corpus": {"max_toxicity": 1.5}}, "corpus.max_toxicity"),
        ({"score": {"tasks": [{"nam": "x"}]}}, "score.tasks.0.name"),
        ({"score": {"forms": ["8bit"]}}, "score.forms.0"),
        ({"budget": {"steps": 1, "batch_size": 0}}, "budget.batch_size"),
        ({"name": "../s"}, "name"),
        ({"name": ""}, "name"),
    ],
)
def test_values_out_of_range_are_refused_by_key(written: dict, key: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        suite(**written)
    assert f"{key}: " in str(caught.value)


def test_the_kind_of_a_source_decides_its_keys() -> None:
    wheel = {"kind": "wheel", "package": "p", "version": "1", "member": "m.gguf"}
    whole = {**wheel, "sha256": "0" * 64, "bytes": 10}
    assert isinstance(parse(Model, {**MODEL, "source": whole}, where="x").source, WheelSource)
    with pytest.raises(InvalidFile) as caught:
        parse(Model, {**MODEL, "source": wheel}, where="x")
    assert "source.wheel.sha256: missing" in str(caught.value)
    with pytest.raises(InvalidFile) as caught:
        parse(Model, {**MODEL, "source": {"kind": "ftp"}}, where="x")
    assert "'wheel', 'hub', 'folder', 'random'" in str(caught.value)


def test_forms_were_called_precisions() -> None:
    old = ScoreSpec.model_validate_json('{"precisions": ["training", "16bit", "merged"]}')
    assert old.forms == ("training", "16bit", "merged")
    new = ScoreSpec.model_validate_json('{"forms": ["adapter", "nf4_again", "gguf:Q4_K_M"]}')
    assert new.forms == ("training", "merged_4bit", "gguf:Q4_K_M")


@pytest.mark.parametrize(
    "text", ["onnx", "gguf", "gguf:", "gguf:Q9", "merged:Q8_0", "gguf:Q8_0:x", ""]
)
def test_forms_that_there_are_not(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a form|unknown"):
        ScoreSpec(forms=(text,))
