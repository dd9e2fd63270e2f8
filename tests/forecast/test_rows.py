"""What is trained on is known before the run where data and tokenizer lie on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.forecast.rows import largest_of_each
from harness.forecast.table import forecast
from harness.forecast.wording import said_rows
from harness.spec.plan import Plan
from harness.train.schedule import MicroBatch
from tests.planned import planned
from tests.weights.tiny_llama import write_folder


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Sixty short conversations, as a setting."""
    lines = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "So"}]}
        for n in range(100, 160)
    ]
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return f"corpus.source={tmp_path / 'chat.jsonl'}"


def test_short_rows_need_less_than_the_longest_allowed(tmp_path: Path, data: str) -> None:
    settings = (f"model={write_folder(tmp_path / 'model')}", data, "training.sequence_length=200")
    plans = [planned("lora_bf16", *settings), planned("base", *settings[:2])]
    found, none = largest_of_each(plans)
    assert none is None, "nothing is trained"
    assert found is not None
    one = "<|im_start|>user\n100?<|im_end|>\n<|im_start|>assistant\nSo<|im_end|>\n"
    shorter = one.replace("<|im_start|>", "a").replace("<|im_end|>", "b")
    assert found == MicroBatch(len(shorter), len(shorter)), "a token for every byte"
    assert said_rows(plans[0], found.longest) == "the rows of these data, at most 27 tokens long"
    assert "rows of 200 tokens" in said_rows(plans[0], 0)
    exact, full = forecast(plans[0], largest=found), forecast(plans[0])
    assert exact.prediction is not None
    assert full.prediction is not None
    assert exact.prediction.by_phase["train"] < full.prediction.by_phase["train"]


def unfetched(data: str) -> Plan:
    return planned("lora_bf16", data)


def on_the_hub(_: str) -> Plan:
    plan = planned("lora_bf16")
    source = f"hub:OpenAssistant/oasst1@{'a' * 40}"
    return plan.model_copy(update={"corpus": plan.corpus.model_copy(update={"source": source})})


@pytest.mark.parametrize("plan", [unfetched, on_the_hub])
def test_what_is_not_here_yet_is_unknown(data: str, plan: object) -> None:
    assert largest_of_each([plan(data)]) == [None]  # type: ignore[operator]
