"""Splits by tree: stable when data is added, alike in every language, and without leaks."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from harness.corpus.corpus import Corpus, build_corpus
from harness.corpus.splits import share_of, side_of
from harness.errors import CorpusError, InvalidFile, LeakageError
from harness.spec.schema import parse
from harness.spec.suite import CorpusSpec

TREES = "oasst1-en-validation.trees.jsonl.gz"


def build(source: Path, **choices: Any) -> Corpus:
    return build_corpus(CorpusSpec(source=str(source), **choices))


def trees_of(conversations: Any) -> set[str]:
    return {one.tree_id for one in conversations}


def test_no_tree_is_on_both_sides(oasst: Path) -> None:
    corpus = build(oasst / TREES, policy="all_paths")
    assert not trees_of(corpus.train) & trees_of(corpus.held_out)
    assert {pair.tree_id for pair in corpus.pairs} <= trees_of(corpus.held_out)


@pytest.mark.parametrize("policy", ["best_path", "all_paths", "one_reply"])
def test_adding_data_moves_no_tree(oasst: Path, tmp_path: Path, policy: Any) -> None:
    with gzip.open(oasst / TREES, "rt", encoding="utf-8") as file:
        lines = file.readlines()
    (tmp_path / "half.jsonl").write_text("".join(lines[::-2]), encoding="utf-8")
    half = build(tmp_path / "half.jsonl", policy=policy)
    whole = build(oasst / TREES, policy=policy)
    assert trees_of(half.train) < trees_of(whole.train)
    assert trees_of(half.held_out) < trees_of(whole.held_out)


@pytest.mark.parametrize("language", ["en", "es", "zh", "pt-BR", "und"])
@pytest.mark.parametrize("fraction", [0.05, 0.15, 0.5])
def test_every_language_is_held_out_at_the_same_rate(language: str, fraction: float) -> None:
    spec = CorpusSpec(held_out_fraction=fraction)
    count = sum(side_of(f"tree-{n}", language, spec) == "held_out" for n in range(20_000))
    assert count / 20_000 == pytest.approx(fraction, abs=0.012)


def test_languages_are_split_independently() -> None:
    spec = CorpusSpec(held_out_fraction=0.5)
    both = sum(
        side_of(f"tree-{n}", "en", spec) == side_of(f"tree-{n}", "de", spec) == "held_out"
        for n in range(10_000)
    )
    assert both / 10_000 == pytest.approx(0.25, abs=0.02)


def test_shares_do_not_depend_on_where_strings_are_cut() -> None:
    assert share_of("ab", "c") != share_of("a", "bc")
    assert 0 <= share_of("x") < 1


def test_the_limit_draws_a_stable_part(oasst: Path) -> None:
    whole = build(oasst / TREES)
    few = build(oasst / TREES, held_out_limit=10)
    fewer = build(oasst / TREES, held_out_limit=5)
    assert len(few.held_out) == 10
    assert trees_of(fewer.held_out) < trees_of(few.held_out) < trees_of(whole.held_out)
    assert few.train == whole.train
    assert {pair.tree_id for pair in few.pairs} <= trees_of(few.held_out)


def _leaky(path: Path, shared: str, other: str) -> Path:
    """Forty threads; ``shared`` is said in one that is held out, ``other`` in one that is not.

    Both answer the same prompt.
    """
    sides: dict[bool, list[str]] = {True: [], False: []}
    records = []
    for number in range(40):
        tree = f"tree-{number}"
        sides[side_of(tree, "en", CorpusSpec()) == "held_out"].append(tree)
    for held_out, trees in sides.items():
        for index, tree in enumerate(trees):
            reply = (shared if held_out else other) if index == 0 else f"Reply of {tree}"
            prompt = "Same prompt?" if index == 0 else f"Prompt of {tree}"
            base = {"message_tree_id": tree, "lang": "en"}
            records += [
                {**base, "message_id": tree, "parent_id": None, "role": "prompter",
                 "text": prompt},
                {**base, "message_id": f"{tree}-a", "parent_id": tree, "role": "assistant",
                 "text": reply},
            ]  # fmt: skip
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("other", ["Same answer.", "same   ANSWER.\n", "\tSame\u00a0answer."])
def test_a_held_out_text_in_training_fails_the_run(tmp_path: Path, other: str) -> None:
    path = _leaky(tmp_path / "leaky.jsonl", "Same answer.", other)
    with pytest.raises(LeakageError) as caught:
        build(path)
    message = str(caught.value)
    assert "1 held-out prompts occur with their replies in 1 training conversations too" in message
    assert "same answer." in message
    assert 'on_leak = "drop"' in message


def test_leaks_can_be_dropped_and_are_counted(tmp_path: Path) -> None:
    path = _leaky(tmp_path / "leaky.jsonl", "Same answer.", "Same answer.")
    corpus = build(path, on_leak="drop")
    row = next(row for row in corpus.result.funnel if row.step == "leakage")
    assert "1 conversation" in row.removed
    assert "share 1 prompts and replies" in row.removed
    clean = build(_leaky(tmp_path / "clean.jsonl", "One", "Two"))
    assert len(corpus.train) == len(clean.train) - 1


def test_a_shared_text_of_a_preference_pair_is_a_leak_too(tmp_path: Path) -> None:
    path = _leaky(tmp_path / "leaky.jsonl", "One", "Two")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    held = next(r for r in records if r["text"] == "One")
    held["rank"] = 0
    worse = {**held, "message_id": "worse", "text": "Two", "rank": 1}
    path.write_text("\n".join(json.dumps(record) for record in [*records, worse]))
    with pytest.raises(LeakageError):
        build(path)


def test_the_real_trees_do_not_leak(oasst: Path) -> None:
    for policy in ("best_path", "one_reply"):
        build(oasst / TREES, policy=policy)


def test_a_corpus_too_small_for_two_sides_says_which_step_took_what(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text('{"prompt": "Hi", "response": "Ho"}')
    with pytest.raises(CorpusError) as caught:
        build(path, languages=("en",))
    assert "language: 0 messages left (1 tree, 2 messages: not en)" in str(caught.value)


def test_repeated_short_replies_are_no_leak(tmp_path: Path) -> None:
    records = [
        {"prompt": f"Review {number}: how was it?", "response": ("good", "bad")[number % 2]}
        for number in range(60)
    ]
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records))
    corpus = build(path)
    assert len(corpus.train) + len(corpus.held_out) == 60
    assert build(path, on_leak="drop").train == corpus.train


LABELS = ("good", "bad")
REPEATED = {
    "turns": lambda n, label: {
        "messages": [
            {"role": "user", "content": f"Review {n}?"},
            {"role": "assistant", "content": label},
            {"role": "user", "content": f"Sure of {n}?"},
            {"role": "assistant", "content": "Yes."},
        ]
    },
    "one question about many texts": lambda n, label: {
        "instruction": "Is it good?", "context": f"Text {n}.", "response": label,
    },
    "a system message that is the same": lambda n, label: {
        "system": "Answer with one word.", "prompt": f"Review {n}?", "response": label,
    },
    "preferences": lambda n, label: {
        "prompt": f"Review {n}?", "chosen": label, "rejected": LABELS[label == "good"],
    },
    "text with markers": lambda n, label: {"text": f"### Human: Rate {n} ### Assistant: {label}"},
}  # fmt: skip


@pytest.mark.parametrize("layout", REPEATED)
def test_class_labels_are_no_leak_in_any_layout(tmp_path: Path, layout: str) -> None:
    records = [REPEATED[layout](number, LABELS[number % 2]) for number in range(60)]
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records))
    corpus = build(path)
    assert len(corpus.train) + len(corpus.held_out) == 60
    assert build(path, on_leak="drop").train == corpus.train


def test_another_reply_to_the_same_prompt_is_no_leak_and_the_same_one_is(tmp_path: Path) -> None:
    def write(name: str, reply: str) -> Path:
        records = [
            {"prompt": f"Sum of {n // 2}?", "response": reply.format(n=n, half=n // 2)}
            for n in range(120)
        ]
        (tmp_path / name).write_text("\n".join(json.dumps(record) for record in records))
        return tmp_path / name

    assert build(write("other.jsonl", "By way {n}.")).held_out
    alike = build(write("alike.jsonl", "It is {half}."))
    texts = [
        {m.text for one in side for m in one.messages} for side in (alike.train, alike.held_out)
    ]
    assert not texts[0] & texts[1]


def test_three_sides_share_no_tree_and_validation_moves_no_held_out_tree(oasst: Path) -> None:
    two, three = build(oasst / TREES), build(oasst / TREES, validation_fraction=0.2)
    assert three.held_out == two.held_out
    assert three.pairs == two.pairs
    sides = [trees_of(three.train), trees_of(three.validation), trees_of(three.held_out)]
    assert all(sides)
    assert sum(map(len, sides)) == len(set.union(*sides))
    assert sides[0] | sides[1] == trees_of(two.train)
    assert three.result.validation_conversations == len(three.validation)
    assert "validation" in [row.step for row in three.result.funnel]
    assert two.validation == ()


def test_the_validation_limit_draws_a_stable_part(oasst: Path) -> None:
    whole = build(oasst / TREES, validation_fraction=0.3)
    few = build(oasst / TREES, validation_fraction=0.3, validation_limit=7)
    assert len(few.validation) == 7
    assert trees_of(few.validation) < trees_of(whole.validation)
    assert few.train == whole.train


def test_more_validation_keeps_what_was_validation(oasst: Path) -> None:
    small = build(oasst / TREES, validation_fraction=0.1)
    large = build(oasst / TREES, validation_fraction=0.3)
    assert trees_of(small.validation) < trees_of(large.validation)


@pytest.mark.parametrize("between", [("train", "validation"), ("validation", "held_out")])
def test_no_exchange_is_on_two_sides(tmp_path: Path, between: tuple[str, str]) -> None:
    spec = CorpusSpec(validation_fraction=0.3)
    seen: set[str] = set()
    records = []
    for number in range(60):
        tree = f"tree-{number}"
        side = side_of(tree, "en", spec)
        shared = side in between and side not in seen
        seen.add(side)
        prompt, reply = ("Same?", "Same.") if shared else (f"Prompt {number}", f"Reply {number}")
        base = {"message_tree_id": tree, "lang": "en"}
        records += [
            {**base, "message_id": tree, "parent_id": None, "role": "prompter", "text": prompt},
            {**base, "message_id": f"{tree}-a", "parent_id": tree, "role": "assistant",
             "text": reply},
        ]  # fmt: skip
    path = tmp_path / "leaky.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records))
    with pytest.raises(LeakageError):
        build(path, validation_fraction=0.3)
    corpus = build(path, validation_fraction=0.3, on_leak="drop")
    texts = [
        {m.text for one in side for m in one.messages}
        for side in (corpus.train, corpus.validation, corpus.held_out)
    ]
    assert sum("Same?" in side for side in texts) == 1


def test_fractions_must_leave_something_to_train_on() -> None:
    with pytest.raises(InvalidFile, match="together must be below 1"):
        parse(CorpusSpec, {"held_out_fraction": 0.5, "validation_fraction": 0.5}, where="a suite")


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (1, "begin with the same prompt, and what shares its first prompt stays on one side"),
        (3, "begin with 3 different prompts only"),
        (300, "loosen the filters"),
    ],
)
def test_an_empty_side_is_explained_by_what_the_conversations_share(
    tmp_path: Path, prompts: int, said: str
) -> None:
    """An instruction in the first turn of every conversation makes them all one tree."""
    turns = [("user", "Classify the text {0}."), ("assistant", "Which one?")]
    turns += [("user", "Text {1}"), ("assistant", "Label {1}")]
    lines = [
        json.dumps({"messages": [
            {"role": role, "content": text.format(number % prompts, number)}
            for role, text in turns
        ]})
        for number in range(600)
    ]  # fmt: skip
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(lines))
    with pytest.raises(CorpusError) as caught:
        build(file, held_out_fraction=0.0005 if prompts > 1 else 0.3)
    assert said in str(caught.value.hint)


@pytest.mark.parametrize("column", ["system", "system_prompt"])
def test_what_the_hint_proposes_for_a_shared_instruction_works(tmp_path: Path, column: str) -> None:
    record = {column: "Classify.", "prompt": "Text NUMBER", "response": "Label"}
    lines = [json.dumps(record).replace("NUMBER", str(number)) for number in range(60)]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(lines))
    corpus = build(file, held_out_fraction=0.3)
    assert len(corpus.train) + len(corpus.held_out) == 60
