"""A suite states model, corpus, budget, scores and seeds; each source of weights is checked."""

from __future__ import annotations

import pytest

from harness.errors import InvalidFile
from harness.spec.model import Model, WheelSource
from harness.spec.schema import parse
from harness.spec.suite import ScoreSpec, Suite, Validation

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


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ({"corpus": {"source": "hub:org/data"}}, "pinned to a commit"),
        ({"corpus": {"source": "hub:org/data@main"}}, "40 hexadecimal digits"),
        ({"corpus": {"held_out_fraction": 0.5, "validation_fraction": 0.5}}, "must be below 1"),
        ({"corpus": {"chat_date": "24 July 2024"}}, "chat_date"),
        ({"corpus": {"chat_date": "20240724"}}, "YYYY-MM-DD"),
        ({"score": {"window": 512, "stride": 512}}, "stride 512 must be below window 512"),
        ({"score": {"split": "validation"}}, "needs a corpus.validation_fraction above 0"),
        ({"validation": {"every": 5}}, "needs a corpus.validation_fraction above 0"),
        ({"validation": {"keep": "best"}}, "set every to 1 or more steps"),
        ({"validation": {"patience": 2}}, "set every to 1 or more steps"),
    ],
)
def test_settings_that_contradict_each_other_say_what_is_wrong(written: dict, reason: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        suite(**written)
    assert reason in str(caught.value)


def test_tuning_scores_nothing_but_the_loss_on_the_validation_split() -> None:
    asked = {"tasks": [{"name": "arc_easy"}], "generations": 3, "window": 256, "stride": 128}
    verdict = suite(score=asked).score
    assert verdict.taken == verdict
    tuning = suite(corpus={"validation_fraction": 0.1}, score={**asked, "split": "validation"})
    taken = tuning.score.taken
    assert (taken.tasks, taken.split) == ((), "validation")
    assert (taken.window, taken.stride) == (256, 128)


@pytest.mark.parametrize(
    ("every", "steps", "due"),
    [(0, 6, []), (2, 6, [0, 2, 4, 6]), (4, 6, [0, 4, 6]), (9, 6, [0, 6]), (1, 2, [0, 1, 2])],
)
def test_validation_is_due_before_the_first_step_and_after_the_last(
    every: int, steps: int, due: list[int]
) -> None:
    asked = Validation(every=every)
    assert [step for step in range(steps + 1) if asked.due(step, steps)] == due
    assert asked.times(steps) == len(due)
