"""Data: what the corpus was made of, and what the variants answer, side by side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache

from harness import numbers
from harness.records.corpus_result import CorpusResult
from harness.records.record import Generation
from harness.report.blocks import (
    Block,
    Caveat,
    Cell,
    Code,
    Column,
    Details,
    Figure,
    Section,
    Table,
    prose,
    strong,
    unknown,
)
from harness.report.evidence import Evidence
from harness.report.figures.canvas import Axis
from harness.report.figures.histogram import Histogram
from harness.spec.plan_digests import SAMPLE

SHOWN_PROMPTS = 5
ROWS_STEP = "sequence length"  # the funnel's step that counts training rows


def corpus_section(evidence: Evidence) -> Section | None:
    """Funnel and lengths of the corpus most runs used."""
    found = Counter(
        record.corpus for row in evidence.rows for record in row.records if record.corpus
    )
    if not found:
        return None
    corpus = found.most_common(1)[0][0]
    blocks: list[Block] = [_origin(corpus)]
    if len(found) > 1:
        blocks.append(
            Caveat(f"Runs used {len(found)} different corpora; the most common is shown.")
        )
    if len(corpus.languages) > 1:
        blocks.append(Details("Languages", (_languages(corpus),)))
    if corpus.funnel:
        blocks.append(_funnel(corpus))
    if corpus.length_histogram:
        blocks.append(_lengths(evidence, corpus))
    return Section("corpus", "Corpus", tuple(blocks))


def _origin(corpus: CorpusResult) -> Block:
    kind = (
        " is a sample written for this project, not OASST itself. "
        if corpus.is_sample
        else " was used unchanged. "
    )
    digest = f" SHA-256 {corpus.sha256}." if corpus.sha256 else ""
    return prose(
        strong(corpus.name),
        kind,
        f"{corpus.train_conversations:,} conversations to train on and "
        f"{corpus.held_out_conversations:,} held out, split by message tree.{digest}",
    )


def _languages(corpus: CorpusResult) -> Table:
    columns = (Column("language", number=False), Column("to train on"), Column("held out"))
    rows = tuple(
        (Cell(name), Cell(numbers.count(train), train), Cell(numbers.count(held), held))
        for name, train, held in corpus.languages
    )
    return Table("languages", columns, rows)


def _funnel(corpus: CorpusResult) -> Table:
    changing = corpus.telling_steps
    columns = (
        Column("step", number=False),
        Column("trees"),
        Column("messages"),
        Column("conversations"),
        Column("tokens"),
        Column("removed", number=False),
    )
    rows = tuple(
        (
            Cell(row.step),
            *(
                unknown() if value is None else Cell(numbers.count(value), value)
                for value in (row.trees, row.messages, row.conversations, row.tokens)
            ),
            Cell(row.removed),
        )
        for row in changing
    )
    idle = [row.step for row in corpus.funnel if row not in changing]
    caption = "What was left after each step of preparation."
    if idle:
        caption += f" Steps that removed nothing: {', '.join(idle)}."
    if any(row.step == ROWS_STEP for row in corpus.funnel):
        caption += (
            f" Tokens are those of the messages; in the last step, {ROWS_STEP}, those of the "
            "training rows, which hold what the chat template adds as well."
        )
    return Table("funnel", columns, rows, caption)


def _lengths(evidence: Evidence, corpus: CorpusResult) -> Figure:
    lengths = sorted({r.plan.training.sequence_length for r in evidence.rows if r.plan.trains})
    bounds = tuple(bound for bound, _ in corpus.length_histogram)
    counts = tuple(count for _, count in corpus.length_histogram)
    cuts = tuple((length, f"cut at {length}") for length in lengths[:3] if length < bounds[-1])
    alt = "Conversations by length: " + ", ".join(
        f"{count} up to {bound} tokens" for bound, count in zip(bounds, counts, strict=True)
    )
    drawing = Histogram(Axis("length, tokens"), Axis("conversations"), bounds, counts, cuts)
    return Figure("lengths", "Conversations by length in tokens", alt, drawing)


def generations_section(evidence: Evidence) -> Section | None:
    """Answers of all variants to the same prompts, from the bundled corpus only."""
    answers: dict[str, list[tuple[str, Generation]]] = {}
    references: dict[str, str] = {}
    bundled = sample_texts()
    for row in evidence.ranked:
        for generation in row.finished[0].generations if row.finished else ():
            if generation.prompt not in bundled:
                continue
            if generation.stage == "after":
                answers.setdefault(generation.prompt, []).append((row.label, generation))
            if generation.reference:
                references[generation.prompt] = generation.reference
    if not answers:
        return None
    blocks: list[Block] = [
        prose(
            "One answer per variant (first seed) to prompts of the bundled corpus. A few answers "
            "show style and obvious damage; quality is measured by the scores."
        )
    ]
    blocks += [
        _side_by_side(prompt, answers[prompt], references.get(prompt))
        for prompt in list(answers)[:SHOWN_PROMPTS]
    ]
    return Section("generations", "Generations side by side", tuple(blocks))


def _side_by_side(
    prompt: str, answers: list[tuple[str, Generation]], reference: str | None
) -> Details:
    blocks: list[Block] = [prose(strong("prompt")), Code(prompt)]
    if reference is not None:
        blocks += [prose(strong("reference")), Code(reference)]
    for label, generation in answers:
        ended = "" if generation.ended else ", cut at the limit"
        blocks += [
            prose(strong(label), f" ({generation.tokens} tokens{ended})"),
            Code(generation.answer),
        ]
    first = " ".join(prompt.split())
    return Details(first if len(first) <= 90 else first[:89] + "…", tuple(blocks))


@cache
def sample_texts() -> frozenset[str]:
    """Every message text of the bundled corpus: what a published report may show."""
    texts: list[str] = []
    if SAMPLE.is_file():
        for line in SAMPLE.read_text(encoding="utf-8").splitlines():
            tree = json.loads(line)
            texts += _texts([tree["prompt"]])
    return frozenset(texts)


def _texts(messages: Iterable[dict[str, object]]) -> Iterator[str]:
    for message in messages:
        yield str(message["text"])
        replies = message.get("replies")
        if isinstance(replies, list):
            yield from _texts(replies)
