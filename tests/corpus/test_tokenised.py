"""A second start reads the cache and gets the same corpus; anything else makes it again."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cache import Reuse, flaw
from harness.corpus.funnel import length_histogram, length_quantiles, with_rows
from harness.corpus.render import Renderer
from harness.corpus.sequences import make_training_rows
from harness.corpus.tokenised import Tokenised, tokenised_corpus
from harness.errors import CorpusError, LeakageError
from harness.spec.suite import CorpusSpec
from harness.spec.variant import Training

SAMPLE = CorpusSpec()


class Notes:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def advance(self, done: int, total: int, **numbers: float) -> None:
        assert done <= total
        assert not numbers

    @property
    def from_cache(self) -> bool:
        return any("from the cache" in text for text in self.texts)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUNE_HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "corpora"


def start(spec: CorpusSpec, renderer: Renderer) -> tuple[Tokenised, bool]:
    """The corpus, and whether it came whole from the cache."""
    notes = Notes()
    found = tokenised_corpus(spec, renderer, Reuse(notes))
    return found, notes.from_cache and "tokenising" not in notes.texts


def assert_equal(one: Tokenised, other: Tokenised) -> None:
    assert one.corpus == other.corpus
    for ours, theirs in ((one.train, other.train), (one.held_out, other.held_out)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert (a.conversation_id, a.tree_id) == (b.conversation_id, b.tree_id)
            assert a.input_ids.dtype == b.input_ids.dtype == np.int32
            assert a.loss_mask.dtype == b.loss_mask.dtype == np.bool_
            np.testing.assert_array_equal(a.input_ids, b.input_ids)
            np.testing.assert_array_equal(a.loss_mask, b.loss_mask)


def test_the_second_start_reads_the_same_from_the_cache(cache: Path, chatml_tokenizer: Any) -> None:
    first, cached_first = start(SAMPLE, Renderer(chatml_tokenizer))
    second, cached_second = start(SAMPLE, Renderer(chatml_tokenizer))
    assert (cached_first, cached_second) == (False, True)
    assert_equal(first, second)
    assert len(list(cache.glob("*/result.json"))) == 1


def test_real_trees_survive_the_cache(cache: Path, chatml_tokenizer: Any, oasst: Path) -> None:
    for name, choices in (
        ("oasst1-en-validation.trees.jsonl.gz", {"policy": "all_paths"}),
        ("openassistant_best_replies_eval.jsonl.gz", {}),
    ):
        spec = CorpusSpec(source=str(oasst / name), **choices)
        renderer = Renderer(chatml_tokenizer)
        first, _ = start(spec, renderer)
        second, cached = start(spec, renderer)
        assert cached
        assert_equal(first, second)


def test_other_choices_bytes_templates_and_tokenizers_are_other_entries(
    cache: Path, chatml_tokenizer: Any, byte_level: Callable[..., Any], tmp_path: Path
) -> None:
    from harness.spec.plan_digests import SAMPLE as FILE

    renderer = Renderer(chatml_tokenizer)
    start(SAMPLE, renderer)
    copied = tmp_path / "copy.jsonl"
    copied.write_bytes(FILE.read_bytes())
    spec = CorpusSpec(source=str(copied))
    assert not start(spec, renderer)[1]
    assert start(spec, renderer)[1]
    copied.write_bytes(FILE.read_bytes().replace(b"infrared thermometer", b"INFRARED thermometer"))
    assert not start(spec, renderer)[1]
    assert not start(CorpusSpec(policy="all_paths"), renderer)[1]
    assert not start(SAMPLE, Renderer(chatml_tokenizer, "vicuna"))[1]
    other = byte_level(bos_token="<s>", eos_token="</s>")
    other.add_special_tokens({"additional_special_tokens": ["<one more>"]})
    assert not start(SAMPLE, Renderer(other, "vicuna"))[1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "messages.parquet").write_bytes(b"PAR1"),
        lambda folder: (folder / "conversations.parquet").unlink(),
        lambda folder: (folder / "result.json").write_text("{"),
        lambda folder: (folder / "pairs.parquet").write_bytes(
            (folder / "messages.parquet").read_bytes()
        ),
    ],
)
def test_a_damaged_entry_is_made_again(
    cache: Path, chatml_tokenizer: Any, damage: Callable[[Path], object]
) -> None:
    renderer = Renderer(chatml_tokenizer)
    first, _ = start(SAMPLE, renderer)
    (entry,) = (path.parent for path in cache.glob("*/result.json"))
    damage(entry)
    again, cached = start(SAMPLE, renderer)
    assert not cached
    assert_equal(first, again)
    assert start(SAMPLE, renderer)[1]


def test_no_flipped_bit_is_taken_over(cache: Path, chatml_tokenizer: Any) -> None:
    """82 of 600 once were."""
    renderer, chance = Renderer(chatml_tokenizer), random.Random(16)
    start(SAMPLE, renderer)
    (entry,) = (path.parent for path in cache.glob("*/result.json"))
    files = [path for path in sorted(entry.iterdir()) if path.name != ".digests.json"]
    for _ in range(600):
        path = chance.choice(files)
        data = path.read_bytes()
        damaged = bytearray(data)
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        assert flaw(entry) == f"whose {path.name} has changed since it was written"
        path.write_bytes(data)
    assert flaw(entry) is None


def test_a_corpus_that_fails_is_not_cached(cache: Path, chatml_tokenizer: Any) -> None:
    renderer = Renderer(chatml_tokenizer)
    with pytest.raises((CorpusError, LeakageError)):
        tokenised_corpus(CorpusSpec(languages=("tlh",)), renderer)
    assert not list(cache.glob("*/result.json"))
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_a_corpus_without_pairs_is_cached_too(
    cache: Path, chatml_tokenizer: Any, tmp_path: Path
) -> None:
    path = tmp_path / "mine.jsonl"
    lines = [f'{{"prompt": "Question {n}", "response": "Answer {n}"}}' for n in range(50)]
    path.write_text("\n".join(lines))
    spec = CorpusSpec(source=str(path))
    first, _ = start(spec, Renderer(chatml_tokenizer))
    second, cached = start(spec, Renderer(chatml_tokenizer))
    assert cached
    assert first.corpus.pairs == second.corpus.pairs == ()
    assert_equal(first, second)


def test_lengths_are_in_the_result(cache: Path, chatml_tokenizer: Any) -> None:
    found, _ = start(SAMPLE, Renderer(chatml_tokenizer))
    result = found.corpus.result
    lengths = sorted(len(one.input_ids) for one in found.train)
    assert result.length_quantiles[0] == (0.0, lengths[0])
    assert result.length_quantiles[-1] == (1.0, lengths[-1])
    assert sum(count for _, count in result.length_histogram) == len(lengths)
    assert result.funnel[0].tokens is not None


def test_histogram_bounds_belong_to_the_shorter_side() -> None:
    lengths = np.array([1, 32, 33, 64, 65], dtype=np.int64)
    assert length_histogram(lengths) == ((32, 2), (64, 2), (128, 1))
    assert length_quantiles(lengths)[3] == (0.5, 33)
    assert length_histogram(lengths[:0]) == length_quantiles(lengths[:0]) == ()


def test_the_sequence_length_is_the_last_step_of_the_funnel(
    cache: Path, chatml_tokenizer: Any
) -> None:
    found, _ = start(SAMPLE, Renderer(chatml_tokenizer))
    rows = make_training_rows(found.train, Training(sequence_length=200))
    row = with_rows(found.corpus.result, rows, "cut").funnel[-1]
    assert row.tokens == rows.tokens
    assert f"{rows.truncated_tokens:,} tokens over 200 (cut)" in row.removed
    assert f"{rows.cut_conversations:,} conversations cut" in row.removed
