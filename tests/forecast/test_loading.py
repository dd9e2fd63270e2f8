"""What loading is predicted to need is what torch's allocator hands out while a base is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.forecast.memory import predict
from harness.forecast.overhead import CUBLAS_BYTES
from harness.forecast.weights import standing_bytes
from harness.spec.plan import Plan
from harness.weights.shape import count_plan
from tests.planned import GPU, planned

ROOT = Path(__file__).parents[2]
SHARDED = ("training.devices=2", "training.parallel=sharded")
MODEL = """
description = "a model in random weights"
license = "none"
[source]
kind = "drawn"
tokenizer = "smollm2_135m_instruct"
[config]
model_type = "llama"
vocab_size = {words}
hidden_size = 512
intermediate_size = 1536
num_hidden_layers = {layers}
num_attention_heads = 8
num_key_value_heads = 8
max_position_embeddings = 2048
tie_word_embeddings = {tied}
"""
# Variant, layers, words, and whether the embedding is the output layer too. With few words layers
# decide, with many the embeddings do.
CASES = {
    "every weight": ("full_finetune", 8, 4096, False),
    "every weight, shallow": ("full_finetune", 3, 4096, False),
    "every weight, deep": ("full_finetune", 20, 512, False),
    "every weight, tied": ("full_finetune", 8, 4096, True),
    "frozen, layers": ("lora_bf16", 8, 512, False),
    "frozen, embeddings": ("lora_bf16", 12, 12000, False),
    "frozen, shallow": ("lora_bf16", 3, 12000, False),
    "frozen, tied": ("lora_bf16", 8, 4096, True),
}


def plan_of(file: Path, variant: str, layers: int, words: int, tied: bool) -> Plan:
    """A plan for two GPUs; the file becomes that of its model."""
    file.write_text(MODEL.format(layers=layers, words=words, tied=str(tied).lower()))
    return planned(variant, f"suite.model={file}", *SHARDED, device=GPU)


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Plan, dict[str, int]]]:
    """Every case's plan, and bytes at most while it is loaded and in a pass beside the weights."""
    folder = tmp_path_factory.mktemp("plans")
    plans = {
        name: plan_of(folder / f"{number}.toml", *case)
        for number, (name, case) in enumerate(CASES.items())
    }
    files = [folder / f"{number}.json" for number in range(len(plans))]
    for file, plan in zip(files, plans.values(), strict=True):
        file.write_text(plan.model_dump_json())
    said = subprocess.run(
        [sys.executable, "-m", "tests.forecast.counted_loading", *map(str, files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr[-3000:]
    found: list[Any] = json.loads(said.stdout.splitlines()[-1])
    return {name: (plan, one) for (name, plan), one in zip(plans.items(), found, strict=True)}


@pytest.mark.parametrize("case", CASES)
def test_loading_a_sharded_base_takes_what_is_predicted(
    counted: dict[str, tuple[Plan, dict[str, int]]], case: str
) -> None:
    plan, found = counted[case]
    prediction = predict(plan)
    assert prediction is not None
    # the tokens of the check, and workspaces that only a GPU has, aside
    assert prediction.by_phase["load"] - 2 * CUBLAS_BYTES == pytest.approx(found["load"], rel=0.03)


@pytest.mark.parametrize("case", [name for name in CASES if CASES[name][2] < 12000])
def test_layers_that_are_whole_in_a_pass_are_predicted(
    counted: dict[str, tuple[Plan, dict[str, int]]], case: str
) -> None:
    plan, found = counted[case]
    standing = standing_bytes(plan, count_plan(plan))
    assert standing.around + standing.scored == pytest.approx(found["score"], rel=0.05)


LARGE = ("suite.model=llama33_70b_shape", "training.gradient_checkpointing=true")
PHI = "suite.model={folder}/phi.toml"
MEASURED = {
    "large/recomputed.json": ("qlora_nf4_dq", *LARGE),
    "large/sharded.json": ("qlora_nf4_dq", *LARGE, *SHARDED),
    "h100x2/sharded.json": ("qlora_nf4_dq", PHI, *SHARDED),
    "h100x2/every_weight.json": ("full_finetune", PHI, *SHARDED),
}


@pytest.mark.parametrize("file", MEASURED)
def test_loading_on_gpus_took_what_is_predicted(file: str, tmp_path: Path) -> None:
    """Weights were drawn there, a whole layer on the device before it is quantized."""
    variant, *settings = MEASURED[file]
    text = (ROOT / "harness/models/phi2_shape.toml").read_text().replace('"random"', '"drawn"')
    if variant == "full_finetune":
        text = text.replace("num_hidden_layers = 32", "num_hidden_layers = 8")
    (tmp_path / "phi.toml").write_text(text)
    plan = planned(variant, *(one.format(folder=tmp_path) for one in settings), device=GPU)
    prediction = predict(plan)
    assert prediction is not None
    measured = _phases(json.loads((ROOT / "reports" / file).read_text()))["load"]
    assert prediction.by_phase["load"] == pytest.approx(measured, rel=0.01)


def _phases(found: dict[str, Any]) -> dict[str, int]:
    """Peaks of the phases of a report's first run."""
    if "phases" not in found:
        found = next(run for run in found.values() if "phases" in run)
    return {cost["name"]: cost["peak_allocated_bytes"] for cost in found["phases"]}
