"""Interpolation: a rotary model whose positions are divided, so that more of them fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


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
