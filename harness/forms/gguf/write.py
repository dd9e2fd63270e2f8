"""Write: a merged model and its tokenizer in one GGUF file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from harness.errors import StorageError
from harness.forms.gguf.families import family_of, places
from harness.forms.gguf.types import FILE_TYPES, check_library, encode, tensor_type
from harness.forms.gguf.vocabulary import Vocabulary, read_vocabulary

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Speech:
    """A tokenizer with its chat template, and the token that ends a reply if it is not its EOS."""

    tokenizer: Any
    end_of_turn_id: int | None = None


def write_gguf(
    path: Path, model: Any, speech: Speech | None, quant: str, tell: Tell | None = None
) -> None:
    """Write ``model`` (unquantized) in the file type ``quant``.

    Without a tokenizer the file holds the weights only, which transformers can read and llama.cpp
    cannot. ``tell`` hears how many tensors are done.

    Raises:
        UserError: an architecture, a rope scaling or a tokenizer that cannot be written, or a type
            for which a library is missing.
        StorageError: the file cannot be written.
    """
    check_library(quant)
    config = model.config
    family = family_of(config.model_type)
    words = model.get_input_embeddings().weight.shape[0]
    vocabulary = None if speech is None else read_vocabulary(speech.tokenizer, words)
    writer = gguf.GGUFWriter(None, family.architecture)
    writer.add_name(_name(config.model_type, vocabulary))
    _write_shape(writer, config, words)
    writer.add_file_type(FILE_TYPES[quant][0])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if vocabulary is not None:
        _write_vocabulary(writer, vocabulary)
    if speech is not None and speech.end_of_turn_id is not None:
        writer.add_eot_token_id(speech.end_of_turn_id)
    _add_tensors(writer, model, quant, tell or _silent)
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", where=path) from error


def is_scaled(config: Any) -> bool:
    """Whether rotary positions are scaled, which transformers forgets when it reads the file."""
    return bool(_rope(config)["rope_type"] != "default")


def _name(model_type: str, vocabulary: Vocabulary | None) -> str:
    """A name that makes llama.cpp do the right thing: for Phi-3's own tokens it strips blanks.

    It looks for "phi-3" in the name and then asks for those tokens. Transformers takes a llama
    for another architecture if it is called just "mistral".
    """
    is_phi3 = model_type == "phi3" and vocabulary is not None and "</s>" in vocabulary.tokens
    return "phi-3, fine-tuned" if is_phi3 else "a fine-tuned model"


def _silent(_done: int, _total: int) -> None:
    """Nobody listens."""


def _add_tensors(writer: Any, model: Any, quant: str, tell: Tell) -> None:
    layers = model.config.num_hidden_layers
    state = model.state_dict()
    todo = list(places(model))
    for done, place in enumerate(todo):
        values = place.rows(state[place.parameter].detach().float().cpu().numpy())
        kind = tensor_type(place.tensor, values.shape, quant, layers)
        writer.add_tensor(place.tensor, encode(values, kind), raw_dtype=kind)
        tell(done + 1, len(todo))
    factors = _rope_factors(model.config)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors)


def _write_shape(writer: Any, config: Any, words: int) -> None:
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    rope = _rope(config)
    writer.add_context_length(_context(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", None) or heads)
    if getattr(config, "rms_norm_eps", None) is not None:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head * rope.get("partial_rotary_factor", 1.0)))
    if head * heads != config.hidden_size:
        writer.add_key_length(head)
        writer.add_value_length(head)
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    writer.add_vocab_size(words)
    if config.model_type == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
        writer.add_sliding_window(config.sliding_window or 0)


def _rope(config: Any) -> dict[str, Any]:
    """The rotary settings, the same words for all models.

    Raises:
        UserError: a scaling that the writer does not know.
    """
    found = dict(getattr(config, "rope_parameters", None) or {})
    family_of(config.model_type).check_scaling(found.setdefault("rope_type", "default"))
    found.setdefault("rope_theta", getattr(config, "rope_theta", 10_000.0))
    partial = getattr(config, "partial_rotary_factor", None)
    if partial is not None:
        found.setdefault("partial_rotary_factor", partial)
    return found


def _context(config: Any) -> int:
    """Positions to offer: not past a sliding window that the file cannot state."""
    positions = int(config.max_position_embeddings)
    window: int | None = getattr(config, "sliding_window", None)
    if window is None or not getattr(config, "use_sliding_window", True):
        return positions
    return positions if family_of(config.model_type).windows else min(positions, window)


def _rope_factors(config: Any) -> np.ndarray[Any, Any] | None:
    """Divisors of the rotary frequencies in Llama 3.1's scaling, one for each pair.

    Long waves are slowed down by ``factor``, short ones not at all, in between it is interpolated
    (Llama 3.1's released model code, ``apply_scaling``).
    """
    rope = _rope(config)
    if rope["rope_type"] != "llama3":
        return None
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    frequencies = rope["rope_theta"] ** -(np.arange(0, head, 2, dtype=np.float64) / head)
    waves = 2 * math.pi / frequencies
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = (rope["original_max_position_embeddings"] / waves - low) / (high - low)
    share = np.clip(share, 0, 1)
    factors: np.ndarray[Any, Any] = 1 / ((1 - share) / rope["factor"] + share)
    return factors.astype(np.float32)


def _write_vocabulary(writer: Any, found: Vocabulary) -> None:
    writer.add_tokenizer_model(found.model)
    writer.add_tokenizer_pre(found.split)
    writer.add_token_list(found.tokens)
    writer.add_token_types(found.types)
    if found.scores is not None:
        writer.add_token_scores(found.scores)
    if found.merges:
        writer.add_token_merges(found.merges)
    adders = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "unk": writer.add_unk_token_id,
        "pad": writer.add_pad_token_id,
    }
    for name, index in found.special.items():
        adders[name](index)
    writer.add_add_bos_token(found.adds_bos)
    if "space_prefix" in found.flags:
        writer.add_add_space_prefix(found.flags["space_prefix"])
    if found.template is not None:
        writer.add_chat_template(found.template)
