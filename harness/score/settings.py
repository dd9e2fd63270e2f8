"""Settings: what a model's own generation_config.json changes in its greedy answers."""

from __future__ import annotations

from typing import Any

# Settings of a model's generation_config.json that do not change greedy decoding.
HARMLESS = frozenset(
    (
        "_from_model_config", "bos_token_id", "cache_implementation", "decoder_start_token_id",
        "do_sample", "eos_token_id", "max_length", "max_new_tokens", "output_attentions",
        "output_hidden_states", "pad_token_id", "temperature", "top_k", "top_p",
        "transformers_version", "use_cache",
    )
)  # fmt: skip


def own_settings(model: Any) -> str:
    """What the model's own ``generation_config.json`` changes in every answer; "" where nothing.

    Transformers applies a repetition penalty, for example, to greedy answers too.
    """
    settings = _of(model)
    changed = {} if settings is None else settings.to_diff_dict()
    return ", ".join(f"{key} = {changed[key]}" for key in sorted(changed.keys() - HARMLESS))


def own_limit(model: Any) -> int | None:
    """The most new tokens by the model's own settings, which count before a total length."""
    limit = getattr(_of(model), "max_new_tokens", None)
    return None if limit is None else int(limit)


def own_ends(model: Any) -> frozenset[int]:
    """Tokens that end every answer by the model's own settings."""
    ends = getattr(_of(model), "eos_token_id", None)
    if ends is None:
        return frozenset()
    return frozenset([ends] if isinstance(ends, int) else [int(end) for end in ends])


def _of(model: Any) -> Any:
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    return getattr(base, "generation_config", None)
