"""Suite: what to fine-tune on and how to score it, as its author writes it down."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Literal

from pydantic import (
    AliasChoices,
    ConfigDict,
    Field,
    JsonValue,
    field_validator,
    model_validator,
)

from harness.spec.form import FormName
from harness.spec.schema import Frozen
from harness.spec.variant import Name, Positive

Fraction = Annotated[float, Field(ge=0, le=1)]
SEED_LIMIT = 2**32
Seed = Annotated[
    int, Field(ge=0, lt=SEED_LIMIT, description="the range that NumPy and torch share")
]


HUB_SOURCE = re.compile(r"hub:(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")


class CorpusSpec(Frozen):
    """Which conversations to use and how they become training and held-out sets."""

    source: str = Field(
        default="sample",
        description='"sample" (bundled), a file, a folder, or "hub:OpenAssistant/oasst1@revision"',
    )
    format: str = Field(
        default="auto",
        description="a format of harness/corpus/formats.py; auto: recognised by content",
    )
    policy: Literal["best_path", "all_paths", "top_paths", "one_reply"] = "best_path"
    max_rank: Annotated[int, Field(ge=0)] = Field(
        default=1, description="for top_paths: the worst rank allowed on a path (0 is best)"
    )
    languages: tuple[str, ...] = Field(default=(), description="empty: all")
    tree_states: tuple[str, ...] = Field(
        default=("ready_for_export",), description="empty: all; data without states passes"
    )
    review: Literal["accepted", "not_rejected", "any"] = "accepted"
    keep_deleted: bool = False
    keep_synthetic: bool = Field(default=True, description="messages written by a model")
    min_quality: Fraction | None = Field(default=None, description="of replies")
    max_toxicity: Fraction | None = None
    max_spam: Fraction | None = None
    min_characters: Annotated[int, Field(ge=0)] = Field(default=1, description="per message")
    max_characters: Positive | None = Field(default=None, description="per message")
    near_duplicate_threshold: Fraction | None = Field(
        default=None, description="Jaccard similarity over which a conversation is dropped"
    )
    held_out_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    held_out_limit: Positive | None = Field(
        default=None, description="at most this many held-out conversations are scored"
    )
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="of all trees, taken out of training, for tuning and stopping"
    )
    validation_limit: Positive | None = Field(
        default=None, description="at most this many validation conversations are scored"
    )
    chat_date: str = Field(
        default="2024-07-26", description="what chat templates that print the date print"
    )
    on_leak: Literal["error", "drop"] = Field(
        default="error",
        description="a held-out text also occurs in training: fail, or drop those training "
        "conversations and count them",
    )
    on_bad: Literal["error", "skip"] = "error"

    @model_validator(mode="after")
    def _hub_is_pinned(self) -> CorpusSpec:
        if self.source.startswith("hub:") and HUB_SOURCE.fullmatch(self.source) is None:
            msg = (
                "a hub source is pinned to a commit: hub:OpenAssistant/oasst1@ and 40 hexadecimal "
                "digits, from the data set's page under Files and versions"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _something_is_trained(self) -> CorpusSpec:
        if self.held_out_fraction + self.validation_fraction >= 1:
            msg = "held_out_fraction and validation_fraction together must be below 1"
            raise ValueError(msg)
        return self

    @field_validator("chat_date")
    @classmethod
    def _is_a_date(cls, value: str) -> str:
        if date.fromisoformat(value).isoformat() != value:
            msg = "a date is written YYYY-MM-DD"
            raise ValueError(msg)
        return value


class Budget(Frozen):
    """How much every variant of the suite is trained, whatever its method.

    Exactly one of ``steps`` and ``tokens`` (non-padding tokens seen) is set.
    """

    steps: Annotated[int, Field(ge=0)] | None = None
    tokens: Positive | None = None
    batch_size: Positive = Field(default=2, description="rows per optimizer step")

    @model_validator(mode="after")
    def _one_measure(self) -> Budget:
        if (self.steps is None) == (self.tokens is None):
            msg = "set exactly one of steps and tokens"
            raise ValueError(msg)
        return self


class Validation(Frozen):
    """Loss on the validation split while a variant is trained; never on held-out data.

    A training is validated before its first step, after every ``every`` steps and after its last.
    """

    every: Annotated[int, Field(ge=0)] = Field(
        default=0, description="optimizer steps from one validation to the next; 0: none"
    )
    keep: Literal["last", "best"] = Field(
        default="last",
        description="which weights are scored and saved: those after the last step, or those with "
        "the lowest validation loss",
    )
    patience: Positive | None = Field(
        default=None,
        description="training stops after so many validations in a row without a new lowest loss",
    )

    @model_validator(mode="after")
    def _something_is_validated(self) -> Validation:
        if not self.every and (self.keep == "best" or self.patience is not None):
            msg = "keep = best and patience need validation losses: set every to 1 or more steps"
            raise ValueError(msg)
        return self

    def due(self, step: int, steps: int) -> bool:
        """Whether to validate after ``step`` of ``steps`` optimizer steps (0: before any)."""
        return self.every > 0 and (step % self.every == 0 or step == steps)

    def times(self, steps: int) -> int:
        """How often a training of ``steps`` steps is validated, unless it stops early."""
        return -(-steps // self.every) + 1 if self.every else 0


class Task(Frozen):
    """One lm-eval task or group: stock, bundled, or of the user's own."""

    name: str = Field(description="lm-eval's name of it, or a task file of your own (.yaml)")
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    limit: Positive | None = None
    apply_chat_template: bool = False


Order = Literal["conversations", "rows"]
Split = Literal["held_out", "validation"]


class ScoreSpec(Frozen):
    """Which scores are taken, and how."""

    window: Positive = Field(default=1024, description="tokens per perplexity window")
    stride: Positive = Field(default=512, description="tokens between window starts")
    tasks: tuple[Task, ...] = ()
    also: tuple[str, ...] = Field(
        default=(), description="further scores by name, of those that no other setting asks for"
    )
    include_path: str | None = Field(
        default=None, description="folder with lm-eval task files of your own"
    )
    data_folder: str | None = Field(
        default=None, description="folder that mirrors hub data sets as <org>/<name>"
    )
    preference: bool = False
    forgetting: bool = Field(default=False, description="bits per byte on unrelated text")
    forgetting_tokens: Positive = Field(
        default=128, description="tokens read from the start of each unrelated article"
    )
    held_out_tokens: Positive | None = Field(
        default=None, description="score at most this many first tokens of a conversation"
    )
    generations: Annotated[int, Field(ge=0)] = Field(
        default=0, description="how many prompts every variant answers"
    )
    prompts: Literal["held_out", "sample"] = Field(
        default="held_out",
        description="where those prompts come from: the held-out part of the suite's corpus, or of "
        "the bundled sample, whose text may be published",
    )
    max_new_tokens: Positive = 96
    forms: Annotated[tuple[FormName, ...], Field(min_length=1)] = Field(
        default=("training",),
        validation_alias=AliasChoices("forms", "precisions"),  # as suites and records had it
        description="what is scored: adapter (as trained), 16bit, merged, merged_dequantized, "
        "nf4_again, int8_again, hqq_again:bits=3, … (any scheme), gguf:Q8_0, …",
    )
    engine: Literal["fast", "hf"] = "fast"
    batch_tokens: Positive = Field(default=4096, description="tokens per scoring batch (fast)")
    split: Split = Field(
        default="held_out",
        description='what is scored: the verdict on "held_out", or for tuning only the loss on '
        '"validation"; tasks, preference, forgetting and generations then wait for the verdict',
    )
    primary: str | None = Field(
        default=None,
        description='the score that decides, as task and metric: "arc_easy acc_norm"; by default '
        "held-out perplexity. The others are secondary. It changes no run",
    )

    @model_validator(mode="after")
    def _windows_overlap(self) -> ScoreSpec:
        if self.stride >= self.window:
            msg = f"stride {self.stride} must be below window {self.window}: a token needs context"
            raise ValueError(msg)
        return self

    @property
    def taken(self) -> ScoreSpec:
        """What is really scored: on the validation split nothing but its loss."""
        if self.split == "held_out":
            return self
        kept = ("split", "window", "stride", "held_out_tokens", "engine", "batch_tokens")
        return ScoreSpec(**{key: getattr(self, key) for key in kept})


class Suite(Frozen):
    """What to fine-tune on and how to score: model, corpus, budget, scores, seeds.

    ``training`` and ``precision`` change defaults for every variant of the suite; a variant's own
    file and ``--set`` override them.
    """

    model_config = ConfigDict(protected_namespaces=())

    name: Name
    description: str
    model: str
    corpus: CorpusSpec = CorpusSpec()
    budget: Budget
    validation: Validation = Validation()
    score: ScoreSpec = ScoreSpec()
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    order_seed: Seed | None = Field(
        default=None, description="of the order of the training rows; null: each run's own seed"
    )
    order: Order = Field(
        default="conversations",
        description="conversations: drawn over them before they are cut, dropped or packed, so it "
        "is the same for every sequence length; rows: over what is left, as in older records",
    )
    training: dict[str, JsonValue] = Field(default_factory=dict)
    precision: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _there_is_something_to_tune_on(self) -> Suite:
        wants = {
            'score.split = "validation"': self.score.split == "validation",
            f"validation.every = {self.validation.every}": self.validation.every > 0,
        }
        asked = [setting for setting, wanted in wants.items() if wanted]
        if asked and not self.corpus.validation_fraction:
            msg = f"{asked[0]} needs a corpus.validation_fraction above 0"
            raise ValueError(msg)
        return self
