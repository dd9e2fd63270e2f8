"""Interpolation: more positions for the rotary models that have plain ones, and for no others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig

from harness.errors import UserError
from harness.weights.interpolation import interpolate

SHAPE: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
}


def llama(**fields: Any) -> PretrainedConfig:
    return LlamaConfig(**{**SHAPE, **fields})


def test_a_factor_of_one_changes_nothing() -> None:
    config = llama()
    before = config.to_dict()
    interpolate(config, 1)
    assert config.to_dict() == before


@pytest.mark.parametrize("factor", [2, 4])
def test_the_context_grows_by_the_factor(factor: int) -> None:
    config = llama()
    theta = config.rope_parameters["rope_theta"]
    interpolate(config, factor)
    assert config.max_position_embeddings == 8 * factor
    assert config.rope_parameters["rope_type"] == "linear"
    assert config.rope_parameters["factor"] == float(factor)
    assert config.rope_parameters["rope_theta"] == theta


def rotations(config: PretrainedConfig, positions: torch.Tensor) -> torch.Tensor:
    rotary = AutoModelForCausalLM.from_config(config).model.rotary_emb
    cos, _ = rotary(torch.zeros(1), positions[None])
    return cos  # type: ignore[no-any-return]


def test_every_factor_th_position_is_turned_as_the_plain_one_was() -> None:
    plain, wide = llama(), llama()
    interpolate(wide, 4)
    positions = torch.arange(8)
    torch.testing.assert_close(rotations(plain, positions), rotations(wide, positions * 4))


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (GPT2Config(), "found none"),
        (
            llama(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
            "found scaled ones",
        ),
    ],
    ids=["learned positions", "scaled already"],
)
def test_other_positions_are_refused(config: PretrainedConfig, found: str) -> None:
    before = config.to_dict()
    with pytest.raises(UserError, match="cannot be interpolated") as caught:
        interpolate(config, 2)
    assert found in str(caught.value)
    assert "set interpolation = 1" in str(caught.value)
    assert config.to_dict() == before
