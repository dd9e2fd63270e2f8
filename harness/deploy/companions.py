"""Companions: what goes along with exported weights: tokenizer, chat template, generation."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.corpus.conversation import Message
from harness.deploy.size import folder_bytes
from harness.errors import RunError

if TYPE_CHECKING:
    from harness.corpus.render import Renderer

PROBE = "Where do otters sleep?"


def deployed_tokenizer(renderer: Renderer) -> Any:
    """The tokenizer with the chat template that the run trained with.

    Plain ``apply_chat_template`` then gives the very tokens of training.

    Raises:
        RunError: it does not; the export would be fed other prompts than the model was scored on.
    """
    import copy

    tokenizer = copy.deepcopy(renderer.tokenizer)
    wanted = renderer.prompt_ids([Message(role="user", text=PROBE, id="probe")])
    tokenizer.chat_template = renderer.chat_template
    if prompt_ids(tokenizer, PROBE) == wanted:
        return tokenizer
    raise RunError(
        "the tokenizer's own rendering of a prompt differs from the one in training",
        where=getattr(tokenizer, "name_or_path", None),
        expected=f"tokens {wanted}",
        hint="please report it with the model's name",
    )


def saved_bytes(tokenizer: Any) -> int:
    """Bytes that a tokenizer takes on disk: for a small model more than its weights."""
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        return folder_bytes(Path(scratch))


def prompt_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens of one user message by the tokenizer's own template, ready for an answer."""
    found = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )
    return list(found["input_ids"])


def set_generation(model: Any, renderer: Renderer) -> None:
    """Make generation stop where replies ended in training."""
    settings = model.generation_config
    own = settings.eos_token_id
    ends = [own] if isinstance(own, int) else list(own or [])
    settings.eos_token_id = [
        renderer.end_of_turn_id,
        *(e for e in ends if e != renderer.end_of_turn_id),
    ]
    settings.pad_token_id = renderer.pad_id
    settings.bos_token_id = renderer.tokenizer.bos_token_id


def generation_config(folder: Path, renderer: Renderer) -> Any:
    """Generation settings of the base model at ``folder``, made to stop as in training."""
    from types import SimpleNamespace

    from transformers import GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(folder)
    except OSError:
        found = GenerationConfig()
    set_generation(SimpleNamespace(generation_config=found), renderer)
    return found
