"""Show: a suite's corpus for a person to look at, down to the tokens that are trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from harness.cache import Reuse
from harness.corpus.conversation import Conversation
from harness.corpus.fields import escaped
from harness.corpus.funnel import with_rows
from harness.corpus.render import Renderer
from harness.corpus.sequences import make_training_rows
from harness.corpus.splits import share_of
from harness.corpus.tokenised import Tokenised, tokenised_corpus
from harness.corpus.tokens import TokenSequence
from harness.records.corpus_result import CorpusResult
from harness.records.events import SILENCE, Progress
from harness.spec.schema import parse
from harness.spec.suite import Suite
from harness.spec.variant import Training

BAR_CELLS = 40
TRAINED = "bold green"
UNTRAINED = "dim"


def corpus_report(
    suite: Suite, samples: int, renderer: Renderer, progress: Progress = SILENCE
) -> RenderableType:
    """Funnel, languages, lengths and ``samples`` conversations of a suite's corpus."""
    found = tokenised_corpus(suite.corpus, renderer, Reuse(progress))
    training = parse(Training, suite.training, where=f"suite {suite.name}, [training]")
    rows = make_training_rows(found.train, training)
    result = with_rows(found.corpus.result, rows, training.overflow)
    return Group(
        *_summary(result),
        _lengths(result, training),
        *_tokens(found, renderer, samples, training),
    )


def _summary(result: CorpusResult) -> Iterator[RenderableType]:
    kind = " (the bundled sample, not OASST itself)" if result.is_sample else ""
    yield Text(
        f"{result.name}{kind}: {result.train_conversations:,} training and "
        f"{result.held_out_conversations:,} held-out conversations",
        style="bold",
    )
    if result.validation_conversations:
        yield Text(f"{result.validation_conversations:,} conversations for validation")
    yield funnel_table(result)
    yield _columns(result)
    yield _languages(result)


def funnel_table(result: CorpusResult) -> Table:
    """What was left after each step."""
    table = Table(
        title="Funnel: what was left after each step",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("step")
    for unit in ("trees", "messages", "conversations", "tokens"):
        table.add_column(unit, justify="right")
    table.add_column("removed", overflow="fold")
    idle = [row.step for row in result.funnel if row not in result.telling_steps]
    if idle:
        table.caption = f"Steps that took nothing away: {', '.join(idle)}"
        table.caption_justify = "left"
    for row in result.telling_steps:
        counts = (row.trees, row.messages, row.conversations, row.tokens)
        cells = ["–" if count is None else f"{count:,}" for count in counts]
        table.add_row(row.step, *cells, Text(escaped(row.removed)))
    return table


def _columns(result: CorpusResult) -> Table:
    table = Table("column", "became (records)", title="Columns of the data", title_justify="left")
    for column, use in result.columns:
        table.add_row(Text(escaped(column)), Text(escaped(use)))
    return table


def _languages(result: CorpusResult) -> Table:
    table = Table(title="Languages", title_justify="left")
    for name in ("language", "training", "held out", "share"):
        table.add_column(name, justify="left" if name == "language" else "right")
    total = result.train_conversations + result.held_out_conversations
    for name, train, held_out in result.languages:
        share = f"{(train + held_out) / total:.1%}"
        table.add_row(escaped(name), f"{train:,}", f"{held_out:,}", share)
    return table


def _lengths(result: CorpusResult, training: Training) -> RenderableType:
    quantiles = Table(title="Tokens per training conversation", title_justify="left")
    for share, _ in result.length_quantiles:
        quantiles.add_column(_quantile_name(share), justify="right")
    quantiles.add_row(*(f"{tokens:,}" for _, tokens in result.length_quantiles))
    histogram = Table.grid(padding=(0, 1))
    most = max((count for _, count in result.length_histogram), default=1)
    for bound, count in result.length_histogram:
        bar = "█" * round(BAR_CELLS * count / most)
        note = "" if bound <= training.sequence_length else f"over {training.sequence_length:,}"
        histogram.add_row(f"≤ {bound:>6,}", f"{count:>7,}", bar, Text(note, style="yellow"))
    return Group(quantiles, histogram)


def _quantile_name(share: float) -> str:
    return {0.0: "least", 0.5: "median", 1.0: "most"}.get(share, f"{share:.0%}")


def _drawn(conversations: Sequence[Conversation], count: int) -> list[Conversation]:
    """The same few at every call, from all over the corpus."""
    return sorted(conversations, key=lambda one: share_of("shown", one.id))[:count]


def _tokens(
    found: Tokenised, renderer: Renderer, count: int, training: Training
) -> Iterator[RenderableType]:
    sequences = {one.conversation_id: _with_loss_on(one, training) for one in found.train}
    if count:
        yield Text.assemble(
            "Samples as the model sees them: ",
            ("⟦trained tokens⟧", TRAINED),
            ", ",
            ("context", UNTRAINED),
        )
    for conversation in _drawn(found.corpus.train, count):
        sequence = sequences[conversation.id]
        trained = int(sequence.loss_mask.sum())
        title = _title(conversation)
        title.append(f": {len(sequence.input_ids):,} tokens, {trained:,} trained")
        yield Panel(trained_text(sequence, renderer.tokenizer), title=title, title_align="left")


def _with_loss_on(sequence: TokenSequence, training: Training) -> TokenSequence:
    """The sequence with its loss mask as it is trained: all but the first token, or replies."""
    if training.loss_on == "replies":
        return sequence
    mask = np.ones_like(sequence.loss_mask)
    mask[:1] = False  # nothing predicts the first token
    return replace(sequence, loss_mask=mask)


def _title(conversation: Conversation) -> Text:
    return Text(escaped(f"{conversation.id} ({conversation.language})"))


def trained_text(sequence: TokenSequence, tokenizer: Any) -> Text:
    """The decoded tokens; runs of trained ones in bold green between ⟦ and ⟧."""
    text = Text()
    pairs = zip(sequence.loss_mask, sequence.input_ids, strict=True)
    for trained, run in groupby(pairs, key=lambda pair: bool(pair[0])):
        decoded = escaped(tokenizer.decode([int(token) for _, token in run]))
        if trained:
            text.append(f"⟦{decoded}⟧", style=TRAINED)
        else:
            text.append(decoded, style=UNTRAINED)
    return text
