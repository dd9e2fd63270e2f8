"""What cannot be rehearsed on shapes is not predicted, and is said so; nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from harness.errors import InvalidFile
from harness.forecast.memory import fits, largest_batch, predict
from harness.forecast.wording import plan_report
from harness.spec.plan import Plan
from tests.architectures import ARCHITECTURES, model_toml
from tests.planned import planned

MIXERS = ("falcon_h1", "mamba2")  # PEFT refuses "all-linear" there
FLATTENING = ("opt", "bloom", "falcon_alibi", "gpt2")  # they ask for masks or data of their own
QUICK = ("llama", "gemma3_text", *FLATTENING)
ADAPTERS = {
    "LOHA": {"r": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "BOFT": {"boft_block_size": 4, "target_modules": ["q_proj", "v_proj"]},
    "PROMPT_TUNING": {"num_virtual_tokens": 8},
    "PREFIX_TUNING": {"num_virtual_tokens": 8},
    "VBLORA": {
        "r": 4, "num_vectors": 8, "vector_length": 16, "target_modules": ["q_proj", "v_proj"],
    },
    "IA3": {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
}  # fmt: skip


class Heard:
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, done: int, total: int, **numbers: float) -> None:
        pass


def plan_of(name: str, variant: str, folder: Path) -> Plan:
    path = model_toml(name, folder / f"{name}.toml", folder)
    mixers = name in MIXERS and variant == "lora_bf16"
    more = ['adapter.target_modules=["in_proj"]'] if mixers else []
    settings = (f"model={path}", "training.sequence_length=64", "training.speed=plain", *more)
    return planned(variant, *settings)


def said(plan: Plan, memory: str = "") -> str:
    console = Console(width=300)
    with console.capture() as captured:
        console.print(plan_report(plan, memory))
    return captured.get()


@pytest.mark.parametrize("variant", ["lora_bf16", "full_finetune"])
@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
     for name in ARCHITECTURES],
)  # fmt: skip
def test_every_architecture_is_predicted_or_said_not_to_be(
    name: str, variant: str, tmp_path: Path
) -> None:
    plan, heard = plan_of(name, variant, tmp_path), Heard()
    prediction = predict(plan, progress=heard)
    if name in FLATTENING:
        assert prediction is None
    if prediction is None:
        (note,) = heard.notes
        assert note.startswith("memory is not predicted: a step of")
        assert largest_batch(plan, 1 << 40) is None
        assert fits(plan, 1 << 40) is None
    else:
        assert not heard.notes
        assert prediction.peak_bytes > 0


def test_a_pass_of_a_score_has_no_row_longer_than_the_model_s_positions(tmp_path: Path) -> None:
    """Models with tables of positions cannot be rehearsed on longer ones, nor scored."""
    plan, heard = plan_of("gpt_neo", "base", tmp_path), Heard()
    assert plan.score.batch_tokens > plan.model.config["max_position_embeddings"]
    assert predict(plan, progress=heard) is not None, heard.notes


@pytest.mark.parametrize("kind", ADAPTERS)
def test_every_adapter_is_predicted_or_said_not_to_be(kind: str, tmp_path: Path) -> None:
    lines = [f"{key} = {json.dumps(value)}" for key, value in ADAPTERS[kind].items()]
    path = tmp_path / "odd.toml"
    path.write_text("\n".join(['description = "odd"', "[adapter]", f'type = "{kind}"', *lines]))
    heard = Heard()
    prediction = predict(plan_of("llama", str(path), tmp_path), progress=heard)
    assert (prediction is None) == bool(heard.notes)


def test_plan_says_that_nothing_is_predicted_and_shows_the_rest(tmp_path: Path) -> None:
    text = said(plan_of("opt", "lora_bf16", tmp_path), "24GiB")
    assert "memory is not predicted: a step of opt models cannot be rehearsed" in text
    assert "the largest micro-batch that fits into 24.0 GiB is not known" in text
    assert "parameters: " in text
    assert "sets the peak" not in text


def test_an_untrained_model_that_cannot_be_rehearsed(tmp_path: Path) -> None:
    text = said(plan_of("bloom", "base", tmp_path), "24GiB")
    assert "memory is not predicted" in text
    assert "micro-batch" not in text


def test_an_adapter_that_peft_refuses_is_still_the_user_s_mistake(tmp_path: Path) -> None:
    path = model_toml("mamba2", tmp_path / "mamba2.toml", tmp_path)
    with pytest.raises(InvalidFile, match="does not fit the model"):
        predict(planned("lora_bf16", f"model={path}", "training.speed=plain"))
