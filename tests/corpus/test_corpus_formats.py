"""Every form in which users have OASST, on the real files."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.corpus.corpus import Corpus, build_corpus
from harness.corpus.fields import Complaints
from harness.corpus.formats import FORMATS, format_names
from harness.corpus.selection import conversations
from harness.corpus.sources import find_source, read_trees
from harness.corpus.trees import MessageTree, TreeGrower, walk
from harness.errors import CorpusError, InvalidFile, UnknownName
from harness.spec.schema import parse
from harness.spec.suite import CorpusSpec

TREES = "oasst1-en-validation.trees.jsonl.gz"
MESSAGES = "oasst1-en-validation.jsonl.gz"
PARQUET = "oasst1-en-validation.parquet"
OASST2 = "oasst2-trees.stripped.jsonl.gz"


def read(source: Path, **choices: Any) -> tuple[list[MessageTree], TreeGrower]:
    """All trees of a source, before any filter."""
    spec = CorpusSpec(source=str(source), **choices)
    forest = TreeGrower(Complaints(spec.on_bad))
    return list(read_trees(find_source(spec), spec, forest)), forest


def build(source: Path, **choices: Any) -> Corpus:
    return build_corpus(CorpusSpec(source=str(source), **choices))


def write_lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "trees", "messages"),
    [
        (TREES, 188, 2019),
        (MESSAGES, 188, 2019),
        (PARQUET, 188, 2019),
        (OASST2, 520, 1500),
        ("openassistant_best_replies_eval.jsonl.gz", 518, 1538),
        ("oa_questions.jsonl.gz", 953, 2822),
        ("en-train-firstturn-pairs.heuristic.jsonl.gz", 3232, 6464),
        ("oaast_rm_zh.json.gz", 775, 2768 + 836),  # with the turns of its history,
    ],
)
def test_every_real_file_is_read_whole(oasst: Path, name: str, trees: int, messages: int) -> None:
    found, forest = read(oasst / name)
    assert len(found) == trees
    assert sum(1 for tree in found for _ in walk(tree.root)) == messages
    assert forest.complaints.total == 0


def test_trees_messages_and_parquet_give_the_same_corpus(oasst: Path) -> None:
    nested, flat, table = (build(oasst / name) for name in (TREES, MESSAGES, PARQUET))
    assert nested.train == flat.train == table.train
    assert nested.held_out == flat.held_out == table.held_out
    assert nested.pairs == flat.pairs == table.pairs
    assert len(nested.train) + len(nested.held_out) == 188


def test_labels_read_alike_from_mappings_and_lists(oasst: Path) -> None:
    nested, _ = read(oasst / TREES)
    table, _ = read(oasst / PARQUET)
    for one, other in zip(nested, table, strict=True):
        assert dict(one.root.labels) == dict(other.root.labels)
    assert nested[0].root.labels["quality"] == pytest.approx(1 / 3)


def test_messages_below_a_missing_parent_are_counted_not_dropped_in_silence(oasst: Path) -> None:
    _, forest = read(oasst / MESSAGES)
    assert forest.orphans == 3
    read_row = build(oasst / MESSAGES).result.funnel[0]
    assert read_row.removed == "3 messages below a parent that is not in the data"


def test_real_oasst2_holds_every_tree_state_and_32_languages(oasst: Path) -> None:
    found, _ = read(oasst / OASST2)
    states = Counter(tree.state for tree in found)
    assert states["ready_for_export"] == 94
    assert states["prompt_lottery_waiting"] == 314
    corpus = build(oasst / OASST2, tree_states=(), review="any")
    assert {name: t + h for name, t, h in corpus.result.languages}["es"] > 20


def test_a_folder_of_tables_is_read_from_its_tables(oasst: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shutil.copy(oasst / PARQUET, tmp_path / "data" / "validation-00000-of-00001.parquet")
    shutil.copy(oasst / TREES, tmp_path / "2023-04-12_oasst_ready.trees.jsonl.gz")
    (tmp_path / "README.md").write_text("a snapshot of the hub")
    corpus = build(tmp_path)
    assert corpus.train == build(oasst / TREES).train
    assert corpus.result.sha256 is None


def test_a_data_set_saved_by_datasets_is_read(oasst: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_dataset("parquet", data_files=str(oasst / PARQUET), split="train")
    rows.save_to_disk(str(tmp_path / "saved"))
    assert build(tmp_path / "saved").train == build(oasst / TREES).train


def test_sharded_messages_may_have_their_parents_in_another_file(
    oasst: Path, tmp_path: Path
) -> None:
    with gzip.open(oasst / MESSAGES, "rt", encoding="utf-8") as file:
        lines = file.readlines()
    (tmp_path / "a.jsonl").write_text("".join(lines[1000:]), encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("".join(lines[:1000]), encoding="utf-8")
    found, forest = read(tmp_path)
    assert (len(found), forest.orphans) == (188, 3)


def test_a_folder_of_mixed_formats_is_refused(oasst: Path, tmp_path: Path) -> None:
    shutil.copy(oasst / TREES, tmp_path)
    shutil.copy(oasst / MESSAGES, tmp_path)
    with pytest.raises(CorpusError, match="mixes formats"):
        read(tmp_path)


def test_text_without_conversations_is_not_guessed_at(oasst: Path) -> None:
    with pytest.raises(CorpusError) as caught:
        read(oasst / "en-train-text-00.jsonl.gz")
    assert "index, text, source_shard" in str(caught.value)
    assert "line 1" in str(caught.value)


def test_every_format_has_a_name_and_recognises_its_own() -> None:
    assert set(FORMATS.built_in) <= set(format_names())
    with pytest.raises(UnknownName, match="unknown corpus format 'tree'") as caught:
        build_corpus(CorpusSpec(format="tree"))
    assert "did you mean trees" in str(caught.value)


def test_a_format_forced_on_the_wrong_file_says_what_is_missing(oasst: Path) -> None:
    with pytest.raises(CorpusError) as caught:
        read(oasst / TREES, format="messages")
    assert f"{TREES}, line 1, key text" in str(caught.value)


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
        {"text": "### Human: Hi### Assistant: Ho"},
        {"text": "### Human: Hi\n### Assistant: Ho\n"},
        {"prompt": "Hi", "response": "Ho"},
        {"prompt": "Hi", "completion": "Ho"},
        {"instruction": "Hi", "input": "", "output": "Ho"},
        {"instruction": "Hi", "input": "", "output": ["Ho"], "history": []},
        {
            "prompt": [{"role": "user", "content": "Hi"}],
            "completion": [{"role": "assistant", "content": [{"type": "text", "text": "Ho"}]}],
        },
    ],
)
def test_a_users_own_chat_file_is_read(tmp_path: Path, record: dict[str, Any]) -> None:
    (tree,), _ = read(write_lines(tmp_path / "mine.jsonl", record))
    assert [(node.role, node.text) for node in walk(tree.root)] == [
        ("user", "Hi"),
        ("assistant", "Ho"),
    ]


def test_a_system_message_stays_one(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
    ]
    (tree,), _ = read(write_lines(tmp_path / "mine.jsonl", {"messages": messages}))
    assert (tree.system, tree.root.text) == ("Be brief.", "Hi")
    (one,) = conversations(tree, CorpusSpec())
    assert [m.role for m in one.messages] == ["system", "user", "assistant"]
    assert [m.text for m in one.opening] == ["Be brief.", "Hi"]


def test_threads_with_one_first_prompt_stay_on_one_side(tmp_path: Path) -> None:
    records = [{"text": f"### Human: Hi### Assistant: Ho {number}"} for number in range(4)]
    found, _ = read(write_lines(tmp_path / "mine.jsonl", *records))
    assert len({tree.id for tree in found}) == 1


def test_alpaca_input_joins_its_instruction(tmp_path: Path) -> None:
    record = {"instruction": "Translate", "input": "Hallo", "output": "Hello"}
    (tree,), _ = read(write_lines(tmp_path / "mine.jsonl", record))
    assert tree.root.text == "Translate\n\nHallo"


@pytest.mark.parametrize("source", ["hub:OpenAssistant/oasst1", "hub:OpenAssistant/oasst1@main"])
def test_the_hub_needs_a_pinned_revision(source: str) -> None:
    with pytest.raises(InvalidFile, match="pinned to a commit"):
        parse(CorpusSpec, {"source": source}, where="a suite")


def test_a_pinned_hub_source_without_network_is_a_clear_error() -> None:
    from harness.errors import FetchError

    with pytest.raises(FetchError, match="cannot fetch"):
        build_corpus(CorpusSpec(source=f"hub:OpenAssistant/oasst1@{'0' * 40}"))


def test_a_hub_data_set_is_read_in_all_its_splits(
    oasst: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    folder = tmp_path / "OpenAssistant" / "oasst1" / "data"
    folder.mkdir(parents=True)
    shutil.copy(oasst / PARQUET, folder / "validation-00000-of-00001.parquet")
    monkeypatch.chdir(tmp_path)  # datasets takes a folder of the repository's name for it
    corpus = build_corpus(CorpusSpec(source=f"hub:OpenAssistant/oasst1@{'0' * 40}"))
    assert corpus.train == build(oasst / TREES).train
    assert (corpus.result.name, corpus.result.sha256) == ("OpenAssistant/oasst1", None)


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such corpus"):
        find_source(CorpusSpec(source=str(tmp_path / "nothing.jsonl")))
    with pytest.raises(CorpusError, match="no data file"):
        find_source(CorpusSpec(source=str(tmp_path)))


def test_building_a_corpus_loads_no_deep_learning_library() -> None:
    program = (
        "import sys\n"
        "from harness.corpus.corpus import build_corpus\n"
        "from harness.spec.suite import CorpusSpec\n"
        "assert build_corpus(CorpusSpec()).train\n"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_files_of_one_name_in_two_folders_have_messages_of_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        records = [
            {"prompt": f"{name} {number}?", "response": f"{name} {number}!"} for number in range(20)
        ]
        write_lines(tmp_path / name / "data.jsonl", *records)
    corpus = build(tmp_path)
    every = [*corpus.train, *corpus.held_out]
    assert len({one.id for one in every}) == len(every) == 40
    assert corpus.result.funnel[0].messages == 80
    (tmp_path / "b" / "data.jsonl").write_text("{")
    with pytest.raises(CorpusError, match=r"b/data\.jsonl, line 1"):
        build(tmp_path)
