"""CorpusResult: what the data of a run were made of, step by step."""

from __future__ import annotations

import itertools

from pydantic import Field

from harness.records.validation import Count
from harness.spec.schema import Frozen


class FunnelRow(Frozen):
    """What was left after one step of corpus preparation."""

    step: str
    trees: Count | None
    messages: Count | None
    conversations: Count | None
    tokens: Count | None
    removed: str = Field(default="", description="what the step took away, in words")


class CorpusResult(Frozen):
    """What the corpus layer made of its source."""

    name: str
    sha256: str | None = Field(description="of the source file; null for a folder or the hub")
    is_sample: bool = Field(description="the bundled sample, not OASST itself")
    train_conversations: Count
    held_out_conversations: Count
    validation_conversations: Count = 0
    funnel: tuple[FunnelRow, ...] = ()
    columns: tuple[tuple[str, str], ...] = Field(
        default=(), description="(column of the data, what it became)"
    )
    length_histogram: tuple[tuple[int, int], ...] = Field(
        default=(), description="(upper token bound, conversations)"
    )
    length_quantiles: tuple[tuple[float, int], ...] = Field(
        default=(), description="(share of conversations, tokens at most)"
    )
    languages: tuple[tuple[str, int, int], ...] = Field(
        default=(), description="(language, training conversations, held-out conversations)"
    )

    @property
    def telling_steps(self) -> tuple[FunnelRow, ...]:
        """The first step of the funnel, and those after which anything is different."""
        same = {"removed": "", "step": ""}
        telling = [
            row
            for before, row in itertools.pairwise(self.funnel)
            if row.removed or row.model_copy(update=same) != before.model_copy(update=same)
        ]
        return (*self.funnel[:1], *telling)
