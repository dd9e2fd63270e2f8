"""Interpolation: a rotary model whose positions are divided, so that more of them fit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.spec.model import Model

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ROPE = ("rope_parameters", "rope_scaling", "rope_theta")  # where files say how positions turn


def interpolate(config: PretrainedConfig, factor: int) -> None:
    """Divide the rotary positions of ``config`` by ``factor`` and multiply its context.

    This is position interpolation (Chen et al., 2023, arXiv 2306.15595), which transformers calls
    linear scaling.

    Raises:
        UserError: the model has no rotary positions, scales them already, or has several kinds.
    """
    if factor == 1:
        return
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None)
    if not isinstance(rope, dict) or rope.get("rope_type", "default") != "default":
        found = f"scaled ones: {rope}" if rope else "none"
        raise UserError(
            f"positions of a {text.model_type} model cannot be interpolated, found {found:.120}",
            where="interpolation",
            expected="a model with plain rotary positions",
            hint="set interpolation = 1",
        )
    text.rope_parameters = {**rope, "rope_type": "linear", "factor": float(factor)}
    text.max_position_embeddings = text.max_position_embeddings * factor


def interpolated(model: Model, factor: int) -> Model:
    """``model`` as its TOML would describe weights that were saved with interpolated positions."""
    if factor == 1:
        return model
    config: dict[str, Any] = {
        name: value for name, value in model.config.items() if name not in ROPE
    }
    if "max_position_embeddings" in config:
        config["max_position_embeddings"] *= factor
    return model.model_copy(update={"config": config})


def save_positions(config: PretrainedConfig, folder: Path) -> None:
    """Write ``config.json`` beside an adapter that was trained on interpolated positions.

    On the base as it comes the adapter would read other positions, and nothing would say so. With
    this file transformers does not take the folder for a plain adapter, and it holds what to give
    to ``from_pretrained`` as ``config``.
    """
    written = copy.deepcopy(config)
    if hasattr(written, "quantization_config"):
        del written.quantization_config
    written.save_pretrained(folder)
