"""The bundled tasks: replies told apart, and people's rankings."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.corpus.corpus import Corpus, build_corpus
from harness.corpus.render import Renderer
from harness.errors import UserError
from harness.records.events import Silence
from harness.score.bundled import cut, opening_choices, task_names, write_documents
from harness.score.catalogue import document_kinds
from harness.score.take import take_scores
from harness.score.tasks.documents import judge, read
from harness.spec.suite import CorpusSpec, ScoreSpec, Task


@pytest.mark.parametrize(
    ("likelihoods", "choices", "expected"),
    [
        ((-1.0, -2.0), ["aa", "aaaa"], {"acc": 1.0, "acc_norm": 0.5, "longer_wins": 0.0}),
        ((-2.0, -1.0), ["aaaa", "aa"], {"acc": 0.0, "acc_norm": 0.5, "longer_wins": 1.0}),
        ((-1.0, -1.0), ["aé", "bcd"], {"acc": 0.5, "acc_norm": 0.5, "longer_wins": 0.5}),
    ],
)
def test_ties_count_one_half_and_length_is_bytes(
    likelihoods: tuple[float, float], choices: list[str], expected: dict[str, float]
) -> None:
    results = [(value, False) for value in likelihoods]
    assert judge({"choices": choices}, results) == expected


def test_replies_have_distinct_choices_and_one_right_one(corpus: Corpus, tokenizer: Any) -> None:
    rows = list(opening_choices(corpus, Renderer(tokenizer, "chatml")))
    assert len(rows) > 40
    trees = {conversation.tree_id for conversation in corpus.held_out}
    for row in rows:
        assert len(set(row["choices"])) == 4
        assert row["cluster"] in trees
        assert row["prompt"].endswith("assistant\n")
    assert {row["label"] for row in rows} == {0, 1, 2, 3}
    turned = replace(corpus, held_out=corpus.held_out[::-1])
    again = list(opening_choices(turned, Renderer(tokenizer, "chatml")))
    by_item = {row["item"]: row for row in again}
    assert all(by_item[row["item"]] == row for row in rows)


def test_documents_are_those_that_were_written_whatever_their_texts_hold(
    corpus: Corpus, tokenizer: Any, tmp_path: Path
) -> None:
    """Some programs end a line at these too."""
    odd = "one\u2028two\x0bthree\x85four\x1cfive\rsix"
    pairs = [replace(p, better=replace(p.better, text=odd + p.better.text)) for p in corpus.pairs]
    write_documents(
        "ranked_pairs", replace(corpus, pairs=tuple(pairs)), Renderer(tokenizer, "chatml"), tmp_path
    )
    found = read("ranked_pairs", documents=str(tmp_path))["test"]
    assert [row["choices"][0] for row in found] == [pair.better.text for pair in pairs]


def test_cut_ends_with_a_word() -> None:
    assert cut("one two three", 9) == "one two"
    assert cut("short", 9) == "short"
    assert cut("x" * 20, 9) == "x" * 9


def test_preference_shows_the_longer_wins_baseline(
    subject: Any, corpus: Corpus, tmp_path: Path
) -> None:
    found = take_scores(subject(ScoreSpec(preference=True)), "after", tmp_path, Silence())
    by_metric = {s.metric: s for s in found.scores if s.task == "preference"}
    assert set(by_metric) == {"acc", "acc_norm", "longer_wins"}
    longer = [
        0.5
        if len(p.better.text.encode()) == len(p.worse.text.encode())
        else float(len(p.better.text.encode()) > len(p.worse.text.encode()))
        for p in corpus.pairs
    ]
    assert by_metric["longer_wins"].value == pytest.approx(sum(longer) / len(longer))
    assert by_metric["acc"].n == len(corpus.pairs)
    assert [m for m, s in by_metric.items() if s.headline] == ["acc_norm"]


def test_real_trees_have_their_pairs(shared_data: Path, tokenizer: Any, tmp_path: Path) -> None:
    source = shared_data / "oasst" / "oasst1-en-validation.trees.jsonl.gz"
    corpus = build_corpus(CorpusSpec(source=str(source), held_out_fraction=0.95))
    write_documents("ranked_pairs", corpus, Renderer(tokenizer, "chatml"), tmp_path)
    rows = [json.loads(x) for x in (tmp_path / "ranked_pairs.jsonl").read_text().splitlines()]
    assert len(rows) == len(corpus.pairs) > 400
    assert all(row["choices"][0] != row["choices"][1] for row in rows[:50])


def test_what_bundled_tasks_are_made_of_is_known_without_lm_eval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    found = {name: document_kinds(Task(name=name), None) for name in task_names()}
    assert found == {"held_out_replies": ["opening_choices"], "preference": ["ranked_pairs"]}


def test_a_corpus_without_ranks_is_refused(corpus: Corpus, tokenizer: Any, tmp_path: Path) -> None:
    bare = Corpus(corpus.train, corpus.held_out, (), corpus.result)
    with pytest.raises(UserError, match="no ranked_pairs"):
        write_documents("ranked_pairs", bare, Renderer(tokenizer, "chatml"), tmp_path)
