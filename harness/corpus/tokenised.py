"""Tokenised corpora, kept in the user's cache folder by fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from harness.cache import REUSE, Reuse, cache_folder, cached_folder
from harness.corpus.conversation import Conversation, Message, PreferencePair
from harness.corpus.corpus import Corpus, build_corpus
from harness.corpus.funnel import CountTokens, with_lengths
from harness.corpus.render import Renderer
from harness.corpus.sources import find_source
from harness.corpus.tokens import TokenSequence
from harness.errors import HarnessError
from harness.origin import package_versions, sources_digest
from harness.records.corpus_result import CorpusResult
from harness.records.events import Progress
from harness.spec.digests import canonical_json
from harness.spec.storage import read_json, write_json
from harness.spec.suite import CorpusSpec

PACKAGES = ("jinja2", "numpy", "pyarrow", "tokenizers", "transformers")
COUNTED_TOGETHER = 2048


@dataclass(frozen=True)
class Tokenised:
    """A corpus and its token sequences, in the order of its conversations."""

    corpus: Corpus
    train: tuple[TokenSequence, ...]
    held_out: tuple[TokenSequence, ...]
    validation: tuple[TokenSequence, ...] = ()


def tokenised_corpus(spec: CorpusSpec, renderer: Renderer, reuse: Reuse = REUSE) -> Tokenised:
    """Build and tokenise a corpus, or read what an equal call before left in the cache.

    Equal means: the same corpus section, source bytes, tokenizer and chat template, by the same
    code and libraries. An entry that has changed since it was written is made again.

    Raises:
        CorpusError: see :func:`harness.corpus.corpus.build_corpus`.
        StorageError: the cache cannot be read or written.
    """
    progress = reuse.progress
    made: list[Tokenised] = []

    def fill(folder: Path) -> None:
        made.append(_tokenise(spec, renderer, progress))
        _write(folder, made[0])

    path = cache_folder() / "corpora" / _fingerprint(spec, renderer)
    cached_folder(path, fill, reuse)
    if made:
        return made[0]
    progress.note("reading the tokenised corpus from the cache")
    return _read(path) or _tokenise(spec, renderer, progress)


def _fingerprint(spec: CorpusSpec, renderer: Renderer) -> str:
    parts = [
        sources_digest("corpus"),
        package_versions(PACKAGES),
        canonical_json(spec),
        find_source(spec).fingerprint,
        renderer.fingerprint,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _tokenise(spec: CorpusSpec, renderer: Renderer, progress: Progress) -> Tokenised:
    corpus = build_corpus(spec, progress, _counter(renderer, progress))
    progress.note("tokenising")
    every = (*corpus.train, *corpus.held_out, *corpus.validation)
    sequences: list[TokenSequence] = []
    for sequence in renderer.encode_all(every):
        sequences.append(sequence)
        if len(sequences) % 256 == 0:
            progress.advance(len(sequences), len(every))
    train = tuple(sequences[: len(corpus.train)])
    result = with_lengths(corpus.result, train)
    cut = len(train) + len(corpus.held_out)
    held_out, validation = tuple(sequences[len(train) : cut]), tuple(sequences[cut:])
    return Tokenised(replace(corpus, result=result), train, held_out, validation)


def _counter(renderer: Renderer, progress: Progress) -> CountTokens:
    """Counts tokens and says so; at OASST1's size it takes longer than tokenising itself."""

    def count(texts: Sequence[str]) -> list[int]:
        counts: list[int] = []
        if len(texts) > COUNTED_TOGETHER:
            progress.note("counting tokens")
        for start in range(0, len(texts), COUNTED_TOGETHER):
            progress.advance(start, len(texts))
            counts += renderer.count_tokens(texts[start : start + COUNTED_TOGETHER])
        return counts

    return count


def _write(folder: Path, made: Tokenised) -> None:
    """Tables of distinct messages, of conversations and of pairs; and the result."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    corpus = made.corpus
    index: dict[Message, int] = {}

    def numbers(messages: Sequence[Message]) -> list[int]:
        return [index.setdefault(message, len(index)) for message in messages]

    every = (*corpus.train, *corpus.held_out, *corpus.validation)
    conversations = pa.table(
        {
            "id": [one.id for one in every],
            "tree_id": [one.tree_id for one in every],
            "language": [one.language for one in every],
            "messages": pa.array([numbers(one.messages) for one in every], pa.list_(pa.int32())),
            **_token_columns((*made.train, *made.held_out, *made.validation)),
        }
    )
    pairs = pa.table(
        {
            "id": pa.array([pair.id for pair in corpus.pairs], pa.string()),
            "tree_id": pa.array([pair.tree_id for pair in corpus.pairs], pa.string()),
            "messages": pa.array(
                [numbers((*p.context, p.better, p.worse)) for p in corpus.pairs],
                pa.list_(pa.int32()),
            ),
        }
    )
    messages = pa.table(
        {name: [getattr(m, name) for m in index] for name in ("role", "text", "id", "trained")}
    )
    tables = {"conversations": conversations, "pairs": pairs, "messages": messages}
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
    write_json(folder / "result.json", corpus.result)


def _token_columns(sequences: Sequence[TokenSequence]) -> dict[str, Any]:
    import pyarrow as pa

    offsets = np.cumsum([0, *(len(one.input_ids) for one in sequences)], dtype=np.int64)
    ids = np.concatenate([one.input_ids for one in sequences])
    mask = np.concatenate([one.loss_mask for one in sequences])
    return {
        "input_ids": pa.LargeListArray.from_arrays(offsets, pa.array(ids)),
        "loss_mask": pa.LargeListArray.from_arrays(offsets, pa.array(mask)),
    }


def _read(path: Path) -> Tokenised | None:
    """The entry, or None where it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        result = read_json(path / "result.json", CorpusResult)
        names = ("conversations", "pairs", "messages")
        tables = {name: pq.read_table(path / f"{name}.parquet") for name in names}
        return _assemble(tables, result)
    except (pa.ArrowException, OSError, KeyError, IndexError, HarnessError):
        return None


def _assemble(tables: dict[str, Any], result: CorpusResult) -> Tokenised:
    messages = [Message(*row) for row in _rows(tables["messages"], "role", "text", "id", "trained")]

    def pick(numbers: Sequence[int]) -> tuple[Message, ...]:
        return tuple(messages[number] for number in numbers)

    table = tables["conversations"]
    conversations = tuple(
        Conversation(name, tree, language, pick(numbers))
        for name, tree, language, numbers in _rows(table, "id", "tree_id", "language", "messages")
    )
    sequences = tuple(
        TokenSequence(one.id, one.tree_id, ids, mask)
        for one, ids, mask in zip(
            conversations, _arrays(table, "input_ids"), _arrays(table, "loss_mask"), strict=True
        )
    )
    pairs = tuple(
        PreferencePair(name, tree, pick(numbers[:-2]), *pick(numbers[-2:]))
        for name, tree, numbers in _rows(tables["pairs"], "id", "tree_id", "messages")
    )
    cut = result.train_conversations
    end = cut + result.held_out_conversations
    corpus = Corpus(conversations[:cut], conversations[cut:end], pairs, result, conversations[end:])
    return Tokenised(corpus, sequences[:cut], sequences[cut:end], sequences[end:])


def _rows(table: Any, *columns: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[name].to_pylist() for name in columns), strict=True)


def _arrays(table: Any, column: str) -> Iterator[Any]:
    """A list column as one numpy array per row."""
    whole = table[column].combine_chunks()
    values = whole.values.to_numpy(zero_copy_only=False)
    offsets = whole.offsets.to_numpy()
    return (values[a:b] for a, b in pairwise(offsets))
