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
    read_items,
    read_table,
    right_or_wrong,
    sums,
)
from harness.report.rows import make_rows
from harness.spec.storage import read_json, write_json
from tests.report.records import Made, write_run

PERPLEXITY = ScoreKey("held_out", "perplexity", "training")
CHOICE = ScoreKey("oasst_choice", "acc", "training")


def reading(root: Path, key: ScoreKey = PERPLEXITY) -> Reading:
    runs = [found for found in RunStore(root).scan() if isinstance(found, StoredRun)]
    return read_items(make_rows(runs), key)


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
