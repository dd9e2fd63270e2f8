"""Filters and the funnel: every loss is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.corpus.conversation import Conversation, Message
from harness.corpus.corpus import Corpus, build_corpus
from harness.corpus.render import Renderer
from harness.corpus.splits import jaccard, near_duplicates, shingles
from harness.records.events import Silence
from harness.spec.suite import CorpusSpec

TREES = "oasst1-en-validation.trees.jsonl.gz"
OASST2 = "oasst2-trees.stripped.jsonl.gz"


def build(source: Path, **choices: Any) -> Corpus:
    return build_corpus(CorpusSpec(source=str(source), on_leak="drop", **choices))


def steps(corpus: Corpus) -> dict[str, Any]:
    return {row.step: row for row in corpus.result.funnel}


def test_the_funnel_adds_up(oasst: Path, chatml_tokenizer: Any) -> None:
    renderer = Renderer(chatml_tokenizer)
    spec = CorpusSpec(source=str(oasst / TREES))
    corpus = build_corpus(spec, count_tokens=renderer.count_tokens)
    found = steps(corpus)
    assert (found["read"].trees, found["read"].messages) == (188, 2019)
    assert found["deleted"].messages == 2019 - 40
    assert found["deleted"].removed == "40 messages: deleted by a moderator or its author"
    assert found["policy"].conversations == 188
    for unit in ("trees", "messages", "conversations", "tokens"):
        sides = getattr(found["training"], unit) + getattr(found["held out"], unit)
        assert sides == getattr(found["policy"], unit)
    spoken = [m.text for one in (*corpus.train, *corpus.held_out) for m in one.messages]
    assert found["policy"].tokens == sum(renderer.count_tokens(spoken))
    counts = [row.tokens for row in corpus.result.funnel[: list(found).index("policy") + 1]]
    assert counts == sorted(counts, reverse=True)


def test_without_a_tokenizer_tokens_are_null_not_zero(oasst: Path) -> None:
    assert {row.tokens for row in build(oasst / TREES).result.funnel} == {None}


def test_tree_states_are_named(oasst: Path) -> None:
    row = steps(build(oasst / OASST2))["tree state"]
    assert row.trees == 94
    assert "314 prompt_lottery_waiting, 46 halted_by_moderator" in row.removed


def test_languages(oasst: Path) -> None:
    corpus = build(oasst / OASST2, languages=("es", "zh"), tree_states=())
    assert {one.language for one in (*corpus.train, *corpus.held_out)} == {"es", "zh"}


@pytest.mark.parametrize(
    ("choice", "step"),
    [
        ({"min_quality": 0.6}, "quality"),
        ({"max_toxicity": 0.1}, "toxicity"),
        ({"max_spam": 0.1}, "spam"),
        ({"max_characters": 800}, "length"),
        ({"min_characters": 40}, "length"),
    ],
)
def test_every_filter_takes_something_and_says_so(
    oasst: Path, choice: dict[str, Any], step: str
) -> None:
    row = steps(build(oasst / TREES, **choice))[step]
    assert "messages" in row.removed


def test_quality_is_asked_of_replies_only(oasst: Path) -> None:
    strict = build(oasst / TREES, min_quality=0.99)
    assert all(one.messages[0].role == "user" for one in strict.train)
    assert len(strict.train) < 60


def test_lengths_hold_for_every_message(oasst: Path) -> None:
    corpus = build(oasst / TREES, min_characters=40, max_characters=800)
    lengths = [len(m.text) for one in corpus.train for m in one.messages]
    assert min(lengths) >= 40
    assert max(lengths) <= 800


@pytest.mark.parametrize(
    ("choice", "messages"),
    [
        ({"review": "accepted"}, 1936),
        ({"review": "not_rejected"}, 1936),
        ({"review": "any"}, 1979),
        ({"review": "any", "keep_deleted": True}, 2019),
    ],
)
def test_reviews_and_deletions(oasst: Path, choice: dict[str, Any], messages: int) -> None:
    assert steps(build(oasst / TREES, **choice))["length"].messages == messages


def talk(name: str, text: str) -> Conversation:
    turns = (Message("user", f"Question {name}?", name), Message("assistant", text, name))
    return Conversation(name, name, "en", turns)


LONG = " ".join(f"word{number}" for number in range(80))


def test_near_duplicates_of_other_trees_are_found() -> None:
    same = talk("b", LONG.upper().replace(" ", "\n"))
    near = talk("c", LONG + " and a little more")
    far = talk("d", LONG[::-1])
    one = talk("a", LONG)
    assert near_duplicates([one, far, same, near], 0.8, Silence()) == {2: 0, 3: 0}


def test_paths_of_one_tree_are_no_duplicates() -> None:
    one, other = talk("a", LONG), talk("b", LONG)
    together = Conversation("b", "a", "en", other.messages)
    assert near_duplicates([one, together], 0.8, Silence()) == {}


def test_jaccard_is_exact() -> None:
    one, other = shingles(talk("a", "abcdefgh")), shingles(talk("a", "abcdefgx"))
    texts = ["question a? abcdefgh", "question a? abcdefgx"]
    sets = [{text[i : i + 5] for i in range(len(text) - 4)} for text in texts]
    wanted = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert jaccard(one, other) == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["", "a", "中", "🙂" * 6])
def test_short_and_wide_texts_have_shingles(text: str) -> None:
    assert len(shingles(Conversation("a", "a", "en", (Message("user", text, "a"),)))) >= 1


def test_near_duplicates_are_counted_on_real_data(oasst: Path, tmp_path: Path) -> None:
    corpus = build(oasst / TREES, near_duplicate_threshold=0.9)
    assert "near duplicates" in steps(corpus)
    pairs = oasst / "en-train-firstturn-pairs.heuristic.jsonl.gz"
    row = steps(build(pairs, near_duplicate_threshold=0.7))["near duplicates"]
    assert "0.7 or more similar" in row.removed
