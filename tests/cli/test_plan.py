"""`plan` says what a run would do, before anything is downloaded."""

from __future__ import annotations

import json

import pytest

from harness.cli.preflight import check_adapter
from harness.errors import UserError
from tests.cli.terminal import refused, shown
from tests.planned import planned


def test_plan_as_json_is_the_plan_itself() -> None:
    found = json.loads(
        shown("plan", "-v", "qlora_nf4", "--set", "adapter.r=32", "--json", "--device", "cpu")
    )
    assert found["variant"] == "qlora_nf4+adapter.r=32"
    assert found["adapter"]["r"] == 32


def test_several_plans_as_json_are_a_list() -> None:
    found = json.loads(
        shown("plan", "-v", "base", "-v", "qlora_nf4", "--seeds", "0..1", "--json", "--gpu", "t4")
    )
    names = [(plan["variant"], plan["seed"], plan["device"]["kind"]) for plan in found]
    assert names == [
        ("base", 0, "cuda"),
        ("qlora_nf4", 0, "cuda"),
        ("base", 1, "cuda"),
        ("qlora_nf4", 1, "cuda"),
    ]


def test_plan_for_people_says_memory_and_what_the_corpus_steps_leave() -> None:
    text = shown("plan", "-v", "qlora_nf4", "--gpu", "h100")
    for words in ("qlora_nf4", "H100", "GiB", "trees"):
        assert words in text


@pytest.mark.parametrize("setting", ["adapter.lora_alfa=3", "adapter.r=eight", "adapter.type=LOAR"])
def test_an_adapter_that_peft_would_refuse_is_a_mistake(setting: str) -> None:
    with pytest.raises(UserError, match=r"\[adapter\]"):
        check_adapter(planned("qlora_nf4", setting))


def test_an_unknown_gpu_is_refused() -> None:
    assert "rtx9999" in refused("plan", "-v", "base", "--gpu", "rtx9999")
