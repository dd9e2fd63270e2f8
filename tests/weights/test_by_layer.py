"""A base that is filled and quantized layer by layer is never whole in its plain dtype."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import RunError
from harness.records.events import Silence
from harness.weights.by_layer import decoder_layers
from harness.weights.census import check_census, take_census
from harness.weights.fetch import fetch
from harness.weights.load import load_base
from harness.weights.shape import count_plan, meta_model
from tests.planned import planned
from tests.weights.peak import plain_allocator
from tests.weights.tiny_llama import write_model_file

SHAPE = """
description = "tiny"
license = "none"
[source]
{source}
[config]
model_type = "llama"
vocab_size = 512
hidden_size = {width}
intermediate_size = {inner}
num_hidden_layers = {layers}
num_attention_heads = 4
num_key_value_heads = 4
max_position_embeddings = 256
tie_word_embeddings = {tied}
"""
LAYER_BYTES = 4 * (4 * 512 * 512 + 3 * 512 * 2048)
LAYERS = 12
# Layers: one unquantized and what quantizing it takes meanwhile (1.5 to 1.9 in many tries), and
# as much again for what an allocator keeps. A base that is whole in its plain dtype takes twelve.
ROOM = 4


def model_file(path: Path, source: str, *, large: bool = False, tied: bool = True) -> Path:
    """A model file of a llama with three small layers, or with twelve larger ones."""
    width, inner, layers = (512, 2048, LAYERS) if large else (64, 128, 3)
    path.write_text(
        SHAPE.format(source=source, width=width, inner=inner, layers=layers, tied=str(tied).lower())
    )
    return path


@pytest.fixture
def drawn(tmp_path: Path, tiny_llama: Path, cache: Path) -> Any:
    """Makes model files whose weights are drawn."""
    del cache
    tokenizer = write_model_file(tmp_path / "tiny.toml", tiny_llama)

    def make(seed: int = 0, **more: bool) -> Path:
        source = f'kind = "drawn"\nseed = {seed}\ntokenizer = "{tokenizer}"'
        name = "big" if more.get("large") else "small"
        return model_file(tmp_path / f"{name}_{seed}.toml", source, **more)

    return make


def loaded(model: Path, variant: str = "qlora_nf4_dq") -> Any:
    """The base that a run would load."""
    plan = planned(variant, f"suite.model={model}")
    return load_base(plan, fetch(plan.model, Silence()))


def logits(model: Any) -> torch.Tensor:
    """Of a few tokens."""
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(12)[None]).logits
    return found


@pytest.mark.parametrize("variant", ["lora_bf16", "qlora_nf4_dq", "lora_int4"])
def test_drawn_weights_come_from_the_seed(drawn: Any, variant: str) -> None:
    first, again, other = (loaded(drawn(seed), variant) for seed in (0, 0, 1))
    assert torch.isfinite(logits(first)).all()
    assert torch.equal(logits(first), logits(again))
    assert not torch.equal(logits(first), logits(other))


def test_a_drawn_base_is_the_planned_one(drawn: Any) -> None:
    plan = planned("base_nf4_dq", f"suite.model={drawn()}")
    model = load_base(plan, fetch(plan.model, Silence()))
    check_census(take_census(model), plan, count_plan(plan))
    assert not any(one.requires_grad for one in model.parameters())
    assert not any(one.is_meta for one in (*model.parameters(), *model.buffers()))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_drawing_leaves_the_random_numbers_of_a_run_alone(drawn: Any) -> None:
    model = drawn()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    loaded(model)
    assert torch.equal(torch.rand(4), expected)


def test_layers_are_spread_like_the_models_own_initialisation(drawn: Any) -> None:
    weight = loaded(drawn(tied=False), "lora_bf16").model.layers[1].mlp.up_proj.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert weight.mean().item() == pytest.approx(0, abs=0.001)


def test_a_drawn_model_is_not_written_to_the_cache(drawn: Any) -> None:
    plan = planned("qlora_nf4_dq", f"suite.model={drawn()}")
    folder = fetch(plan.model, Silence())
    assert not list(folder.glob("*.safetensors"))
    assert (folder / "config.json").is_file()


def test_a_model_that_does_not_name_its_layers_is_refused() -> None:
    plan = planned("qlora_nf4_dq")
    model: Any = meta_model(plan.model)
    assert len(decoder_layers(model)) == plan.model.config["num_hidden_layers"]
    model._no_split_modules = []
    with pytest.raises(RunError, match="models of type llama do not say what their layers are"):
        decoder_layers(model)


def peak(model: Path) -> dict[str, int]:
    """What a fresh process takes to load it, with the C library's own allocator and one thread."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.weights.peak", str(model)],
        env=plain_allocator() | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_drawn_base_never_takes_more_than_a_layer_beyond_itself(drawn: Any) -> None:
    drawn(large=False)
    found = peak(drawn(large=True))
    assert found["weights"] < 0.2 * LAYERS * LAYER_BYTES
    assert found["peak"] < found["weights"] + ROOM * LAYER_BYTES


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_base_in_a_folder_is_read_piece_by_piece(tmp_path: Path, tiny_llama: Path) -> None:
    """The pages of its files are the system's, which drops them when memory is short."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    for name in ("small", "big"):
        folder = tmp_path / name
        source = f'kind = "folder"\npath = "{folder}"'
        file = model_file(tmp_path / f"{name}.toml", source, large=name == "big")
        config = planned("base", f"suite.model={file}").model.config
        fields = {key: value for key, value in config.items() if key != "model_type"}
        made = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **fields))
        made.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(folder)
        del made
    found = peak(file)
    assert found["weights"] < 0.2 * LAYERS * LAYER_BYTES
    assert found["peak"] < found["weights"] + ROOM * LAYER_BYTES
