"""The base is scored once per fingerprint; what is kept is whole or taken again."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cache import Reuse
from harness.records.events import Silence
from harness.score.items import Place
from harness.score.reuse import base_key, base_scores
from harness.score.take import take_scores
from harness.spec.suite import ScoreSpec
from harness.spec.variant import Quantization
from tests.score.conftest import make_score_plan

SPEC = ScoreSpec(held_out_tokens=200)


def before(folder: Path) -> Place:
    return Place(folder, "before", "training")


@pytest.fixture
def take(subject: Any) -> Any:
    """Counts how often the base is really scored."""
    calls: list[Path] = []

    def scored(folder: Path) -> Any:
        calls.append(folder)
        return take_scores(subject(SPEC), "before", folder, Silence())

    scored.calls = calls  # type: ignore[attr-defined]
    return scored


def test_a_second_run_reuses_scores_and_items(take: Any, tmp_path: Path) -> None:
    plan, runs = make_score_plan(SPEC), tmp_path / "runs"
    first = base_scores(plan, runs, before(tmp_path / "a"), take)
    second = base_scores(plan, runs, before(tmp_path / "b"), take)
    assert len(take.calls) == 1
    assert first == second
    for score in second.scores:
        assert (tmp_path / "b" / str(score.items)).is_file()


def test_an_untrained_run_has_them_as_its_own(take: Any, tmp_path: Path) -> None:
    found = base_scores(
        make_score_plan(SPEC), tmp_path, Place(tmp_path / "a", "after", "training"), take
    )
    assert {score.stage for score in found.scores} == {"after"}


def test_another_base_has_another_key() -> None:
    plain, packed = make_score_plan(SPEC), make_score_plan(SPEC, Quantization(type="nf4"))
    assert base_key(plain) != base_key(packed)
    assert base_key(plain) == base_key(plain.model_copy(update={"seed": 7, "variant": "other"}))


def test_cut_files_are_taken_again(take: Any, tmp_path: Path) -> None:
    plan = make_score_plan(SPEC)
    base_scores(plan, tmp_path, before(tmp_path / "a"), take)
    kept = tmp_path / ".base" / base_key(plan)
    (kept / "scores.json").write_text((kept / "scores.json").read_text()[:50])
    base_scores(plan, tmp_path, before(tmp_path / "b"), take)
    next((kept / "items").iterdir()).unlink()
    base_scores(plan, tmp_path, before(tmp_path / "c"), take)
    assert len(take.calls) == 3


def test_a_failed_attempt_leaves_nothing(tmp_path: Path, subject: Any) -> None:
    plan = make_score_plan(SPEC)
    empty = subject(SPEC)
    empty = replace(empty, corpus=replace(empty.corpus, held_out=()))
    with pytest.raises(Exception, match="no held-out"):
        base_scores(
            plan, tmp_path, before(tmp_path / "a"),
            lambda folder: take_scores(empty, "before", folder, Silence()),
        )  # fmt: skip
    assert not (tmp_path / ".base" / base_key(plan)).exists()


@pytest.mark.parametrize("seed", range(6))
def test_a_flipped_bit_in_what_is_kept_is_never_a_score(
    take: Any, tmp_path: Path, seed: int
) -> None:
    """A digit of the stored scores once went through."""
    plan, chance = make_score_plan(SPEC), random.Random(seed)
    first = base_scores(plan, tmp_path, before(tmp_path / "a"), take)
    kept = tmp_path / ".base" / base_key(plan)
    path = chance.choice([kept / "scores.json", *sorted((kept / "items").iterdir())])
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    assert base_scores(plan, tmp_path, before(tmp_path / "b"), take) == first
    assert len(take.calls) == 2


def test_a_forced_order_takes_nothing_over_but_its_own(take: Any, tmp_path: Path) -> None:
    plan = make_score_plan(SPEC)
    for order in (None, "one", "one", "two", None):
        base_scores(plan, tmp_path, before(tmp_path / "a"), take, Reuse(order=order))
    assert len(take.calls) == 3


KEY = """
from harness.score.reuse import base_key
from tests.score.conftest import make_score_plan
from harness.spec.suite import ScoreSpec
print(base_key(make_score_plan(ScoreSpec(held_out_tokens=200))))
"""


def key_with(**settings: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", KEY],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **settings},
        cwd=Path(__file__).parents[2],
    )
    return done.stdout.strip()


def test_scores_under_other_arithmetic_are_other_scores() -> None:
    plain = key_with()
    assert plain == key_with(LANG="C", HF_HOME="/elsewhere", COLUMNS="80")
    for name, value in (
        ("ATEN_CPU_CAPABILITY", "default"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
        ("MKL_CBWR", "COMPATIBLE"),
        ("NVIDIA_TF32_OVERRIDE", "1"),
        ("OPENBLAS_CORETYPE", "Haswell"),
        ("DNNL_MAX_CPU_ISA", "AVX2"),
        ("OMP_NUM_THREADS", "3"),
    ):
        assert key_with(**{name: value}) != plain, name
