"""Pairing: what may be compared item by item, and what must stay out, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.records.record import RunRecord
from harness.records.store import RunStore, StoredRun
from harness.report.pairing import (
    KeptItems,
    Reading,
    ScoreKey,
    StoredItems,
    read_file,
    read_items,
    read_table,
    right_or_wrong,
    sums,
)
from harness.report.rows import make_rows
from harness.spec.model import FolderSource, HubSource
from harness.spec.storage import read_json, write_json
from tests.report.records import Made, write_run

PERPLEXITY = ScoreKey("held_out", "perplexity", "training")
CHOICE = ScoreKey("oasst_choice", "acc", "training")


def reading(
    root: Path, key: ScoreKey = PERPLEXITY, read: Callable[[Path], StoredItems | None] = read_file
) -> Reading:
    runs = [found for found in RunStore(root).scan() if isinstance(found, StoredRun)]
    return read_items(make_rows(runs), key, read)


def items_file(folder: Path, key: ScoreKey = PERPLEXITY) -> Path:
    score = key.find(read_json(folder / "record.json", RunRecord))
    assert score is not None
    assert score.items is not None
    return folder / score.items


def rewrite(path: Path, change: Callable[[dict[str, list[Any]]], dict[str, list[Any]]]) -> None:
    pq.write_table(pa.table(change(pq.read_table(path).to_pydict())), path)


@pytest.mark.parametrize(
    ("key", "title", "stem"),
    [
        (PERPLEXITY, "perplexity", "held_out-perplexity-training"),
        (CHOICE, "oasst_choice acc", "oasst_choice-acc-training"),
        (ScoreKey("rouge", "rouge", "training"), "rouge", "rouge-rouge-training"),
        (
            ScoreKey("held_out", "perplexity", "merged"),
            "perplexity (merged)",
            "held_out-perplexity-merged",
        ),
        (
            ScoreKey("a/b c", "é", "training", "before"),
            "a/b c é",
            "a_b_c-_-training-before",
        ),
    ],
)
def test_a_score_has_a_title_for_readers_and_a_stem_for_files(
    key: ScoreKey, title: str, stem: str
) -> None:
    assert key.title == title
    assert key.stem == stem


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("held_out perplexity", PERPLEXITY),
        ("perplexity", PERPLEXITY),
        ("oasst_choice acc", CHOICE),
        ("my task acc_norm", ScoreKey("my task", "acc_norm", "training")),
        ("rouge", ScoreKey("rouge", "rouge", "training")),
    ],
)
def test_a_score_is_found_by_the_name_that_a_person_types(text: str, key: ScoreKey) -> None:
    assert ScoreKey.named(text) == key
    assert key.is_called(text)
    assert key.is_called(key.metric), "its metric alone will do"
    assert not key.is_called("loss")


def test_all_finished_runs_lie_on_common_items(tmp_path: Path) -> None:
    for made in (Made("lora_bf16"), Made("lora_bf16", seed=1), Made("base")):
        write_run(tmp_path, made)
    found = reading(tmp_path)
    assert found.excluded == {}
    aligned = found.aligned
    assert aligned is not None
    assert aligned.labels == ("base", "lora_bf16", "lora_bf16")
    assert aligned.seeds == (0, 0, 1)
    assert aligned.trains == (False, True, True)
    assert (aligned.items, aligned.clusters) == (84, 28)
    assert aligned.numerator.shape == aligned.denominator.shape == (28, 3)
    assert aligned.sizes.tolist() == [3.0] * 28
    assert aligned.weights.sum() == pytest.approx(aligned.denominator[:, 0].sum())
    assert aligned.answers is None, "losses are neither right nor wrong"


def test_answers_that_are_right_or_wrong_are_kept_item_by_item(tmp_path: Path) -> None:
    write_run(tmp_path, Made("base"))
    aligned = reading(tmp_path, CHOICE).aligned
    assert aligned is not None
    assert aligned.answers is not None
    assert set(np.unique(aligned.answers)) == {0, 1}
    assert aligned.answers.sum() == aligned.numerator.sum()


def test_items_in_another_order_are_put_into_the_common_one(tmp_path: Path) -> None:
    write_run(tmp_path, Made("base"))
    plain = reading(tmp_path).aligned
    folder = write_run(tmp_path, Made("lora_bf16"))
    straight = reading(tmp_path).aligned
    rewrite(items_file(folder), lambda t: {name: column[::-1] for name, column in t.items()})
    turned = reading(tmp_path).aligned
    assert plain is not None
    assert straight is not None
    assert turned is not None
    np.testing.assert_allclose(turned.numerator, straight.numerator, rtol=1e-12)


def test_a_run_on_other_items_than_most_stays_out(tmp_path: Path) -> None:
    for variant in ("base", "lora_bf16"):
        write_run(tmp_path, Made(variant))
    odd = write_run(tmp_path, Made("qlora_nf4"))
    rewrite(items_file(odd), lambda t: {**t, "item": [f"other {n}" for n in t["item"]]})
    found = reading(tmp_path)
    assert found.excluded == {"qlora_nf4": "scored on other items"}
    assert found.aligned is not None
    assert found.aligned.labels == ("base", "lora_bf16")


def test_more_items_than_the_others_are_cut_to_the_common_ones(tmp_path: Path) -> None:
    for variant in ("base", "qlora_fp4"):
        rewrite(
            items_file(write_run(tmp_path, Made(variant))),
            lambda t: {name: column[:60] for name, column in t.items()},
        )
    write_run(tmp_path, Made("lora_bf16"))
    found = reading(tmp_path)
    assert found.excluded == {}
    assert found.aligned is not None
    assert found.aligned.items == 60


def test_a_run_on_another_corpus_stays_out(tmp_path: Path) -> None:
    write_run(tmp_path, Made("base", corpus_sha256="ab" * 32))
    write_run(tmp_path, Made("lora_bf16", corpus_sha256="ab" * 32))
    write_run(tmp_path, Made("qlora_nf4", corpus_sha256="cd" * 32))
    assert reading(tmp_path).excluded == {"qlora_nf4": "another model, corpus or way to score"}


def test_the_score_s_own_record_says_whether_it_asked_the_same(tmp_path: Path) -> None:
    for variant, shots in (("base", 0), ("lora_bf16", 0), ("qlora_nf4", 5)):
        folder = write_run(tmp_path, Made(variant))
        record = read_json(folder / "record.json", RunRecord)
        scores = tuple(
            score.model_copy(update={"details": {"asked": {"num_fewshot": shots}}})
            for score in record.scores
        )
        write_json(folder / "record.json", record.model_copy(update={"scores": scores}))
    assert list(reading(tmp_path, CHOICE).excluded) == ["qlora_nf4"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"no parquet"),
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: rewrite(path, lambda t: {k: v for k, v in t.items() if k != "cluster"}),
        lambda path: rewrite(path, lambda t: {**t, "numerator": [float("nan")] * len(t["item"])}),
        lambda path: rewrite(path, lambda t: {**t, "denominator": [0.0] * len(t["item"])}),
    ],
    ids=["gone", "nonsense", "cut", "no clusters", "not a number", "nothing scored"],
)
def test_items_that_cannot_be_read_leave_their_row_out(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    write_run(tmp_path, Made("base"))
    damage(items_file(write_run(tmp_path, Made("lora_bf16"))))
    found = reading(tmp_path)
    assert found.excluded == {"lora_bf16": "no per-item values"}
    assert found.aligned is not None
    assert found.aligned.labels == ("base",)


def test_one_group_of_items_has_no_spread(tmp_path: Path) -> None:
    write_run(tmp_path, Made("base", trees=1))
    found = reading(tmp_path)
    assert found.aligned is None
    assert found.excluded == {"base": "fewer than two groups of items"}


def test_a_score_that_no_run_has_aligns_nothing(tmp_path: Path) -> None:
    write_run(tmp_path, Made("base"))
    found = reading(tmp_path, ScoreKey("x", "acc", "training"))
    assert found.aligned is None
    assert found.excluded == {}


def test_only_the_statistical_columns_are_read(tmp_path: Path) -> None:
    table = read_table(items_file(write_run(tmp_path, Made("base")), CHOICE))
    assert table is not None
    assert list(table) == ["item", "cluster", "numerator", "denominator"]


def test_a_file_is_kept_once_it_could_be_read(tmp_path: Path) -> None:
    """Runs on the same items share their names; a file that is not there yet is asked for again."""
    first, second = (items_file(write_run(tmp_path, Made(name))) for name in ("base", "lora_bf16"))
    kept, elsewhere = KeptItems(), tmp_path / "elsewhere"
    second.rename(elsewhere)
    assert kept(second) is None
    elsewhere.rename(second)
    found = kept(second)
    assert found is not None
    assert kept(first).names is found.names  # type: ignore[union-attr]
    second.unlink()
    assert kept(second) is found


def test_sums_are_taken_by_group_and_run() -> None:
    values = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    assert sums(values, np.array([0, 1, 0])).tolist() == [[5.0, 50.0], [2.0, 20.0]]


@pytest.mark.parametrize(
    ("above", "below", "known"),
    [([1.0, 0.0], [1.0, 1.0], True), ([0.5, 0.0], [1.0, 1.0], False), ([1.0, 0], [2.0, 1], False)],
)
def test_only_noughts_and_ones_of_one_are_answers(
    above: list[float], below: list[float], known: bool
) -> None:
    found = right_or_wrong(np.array([above]).T, np.array([below]).T)
    assert (found is not None) == known


def change(folder: Path, changes: Callable[[RunRecord], dict[str, Any]]) -> None:
    """Rewrite a run's record, as another harness or another day would have made it."""
    record = read_json(folder / "record.json", RunRecord)
    write_json(folder / "record.json", record.model_copy(update=changes(record)))


def from_folder(digest: str | None) -> Callable[[RunRecord], dict[str, Any]]:
    def changes(record: RunRecord) -> dict[str, Any]:
        source = FolderSource(kind="folder", path="/models/mine")
        model = record.plan.model.model_copy(update={"source": source})
        return {"plan": record.plan.model_copy(update={"model": model, "model_sha256": digest})}

    return changes


def from_hub(revision: str) -> Callable[[RunRecord], dict[str, Any]]:
    def changes(record: RunRecord) -> dict[str, Any]:
        source = HubSource(kind="hub", repository="org/mine", revision=revision * 40)
        model = record.plan.model.model_copy(update={"source": source})
        return {"plan": record.plan.model_copy(update={"model": model})}

    return changes


@pytest.mark.parametrize("origin", [from_folder, from_hub])
def test_other_weights_under_the_same_name_stay_out(
    tmp_path: Path, origin: Callable[[str], Callable[[RunRecord], dict[str, Any]]]
) -> None:
    for variant, digest in (("base", "a"), ("lora_bf16", "a"), ("qlora_nf4", "b")):
        change(write_run(tmp_path, Made(variant)), origin(digest))
    found = reading(tmp_path)
    assert found.excluded == {"qlora_nf4": "other weights under the same name"}
    assert found.aligned is not None
    assert found.aligned.labels == ("base", "lora_bf16")


@pytest.mark.parametrize(
    ("digests", "kept"),
    [((None, None, None), 3), (("a", None, "a"), 3), (("a", "a", "b"), 2), (("a", "b", None), 1)],
)
def test_unknown_weights_are_taken_for_the_only_known_ones(
    tmp_path: Path, digests: tuple[str | None, ...], kept: int
) -> None:
    """Plans of older harnesses have no digest; between two known ones nothing can be assumed."""
    for variant, digest in zip(("base", "lora_bf16", "qlora_nf4"), digests, strict=True):
        change(write_run(tmp_path, Made(variant)), from_folder(digest))
    found = reading(tmp_path)
    assert found.aligned is not None
    assert len(found.aligned.labels) == kept
    assert len(found.excluded) == 3 - kept


def of_data(digest: str | None) -> Callable[[RunRecord], dict[str, Any]]:
    return lambda record: {"plan": record.plan.model_copy(update={"data_sha256": digest})}


def test_other_task_data_under_the_same_item_names_stay_out(tmp_path: Path) -> None:
    for variant, digest in (("base", "a"), ("lora_bf16", None), ("qlora_nf4", "a")):
        change(write_run(tmp_path, Made(variant)), of_data(digest))
    assert reading(tmp_path, CHOICE).excluded == {}
    change(write_run(tmp_path, Made("qlora_fp4")), of_data("b"))
    found = reading(tmp_path, CHOICE)
    assert found.excluded == {"lora_bf16": "other task data", "qlora_fp4": "other task data"}
    assert reading(tmp_path).excluded == {}, "the corpus decides what is held out"


def test_documents_tell_task_data_apart_where_items_name_them(tmp_path: Path) -> None:
    """A data folder that another data set was put into asks the same of the others."""
    for variant, digest in (("base", "a"), ("lora_bf16", "b"), ("qlora_nf4", "b")):
        folder = write_run(tmp_path, Made(variant))
        change(folder, of_data(digest))
        path = items_file(folder, CHOICE)
        rewrite(path, lambda t: {**t, "doc_hash": [f"asks {name}" for name in t["item"]]})
    assert reading(tmp_path, CHOICE).excluded == {}
    rewrite(path, lambda t: {**t, "doc_hash": ["asks more", *t["doc_hash"][1:]]})
    found = reading(tmp_path, CHOICE)
    assert found.excluded == {"qlora_nf4": "other task data"}


def test_what_most_runs_asked_is_kept_also_where_equal_documents_are_kept_once(
    tmp_path: Path,
) -> None:
    """One run from before its task's data changed comes first, and two after it."""
    for variant, year in (("base", 2025), ("lora_bf16", 2026), ("qlora_nf4", 2026)):
        path = items_file(write_run(tmp_path, Made(variant)), CHOICE)
        asked = [f"asks {n} in {year}" for n in range(84)]
        rewrite(path, lambda t, asked=asked: {**t, "doc_hash": asked})
    for read in (read_file, KeptItems()):
        assert reading(tmp_path, CHOICE, read).excluded == {"base": "other task data"}


@pytest.mark.parametrize("name", ["window", "cut_tokens"])
def test_a_score_with_a_shorter_context_is_compared_with_its_like(
    tmp_path: Path, name: str
) -> None:
    """Such as a soft prompt leaves; records hold it among their details."""

    def asked(**more: int) -> Callable[[RunRecord], dict[str, Any]]:
        def changes(record: RunRecord) -> dict[str, Any]:
            details = {**more, "asked": {"task": "any"}}
            return {
                "scores": tuple(s.model_copy(update={"details": details}) for s in record.scores)
            }

        return changes

    for variant in ("base", "lora_bf16"):
        change(write_run(tmp_path, Made(variant)), asked(cut_tokens=0))
    change(write_run(tmp_path, Made("qlora_nf4")), asked(**{name: 7}))
    why = "another model, corpus or way to score"
    assert reading(tmp_path, CHOICE).excluded == {"qlora_nf4": why}
