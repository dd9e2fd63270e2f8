"""ROUGE-L is that of the package rouge-score."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from harness.score.rouge import rouge_l

SCORER = RougeScorer(["rougeL"])
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(["the", "Otter", "sleeps", "in", "a", "holt.", "İ", "x-1", "don't"])
    ).map(" ".join),
)


@given(TEXTS, TEXTS)
def test_it_is_the_package_s_own_number(answer: str, reference: str) -> None:
    assert rouge_l(answer, reference) == SCORER.score(reference, answer)["rougeL"].fmeasure


def test_a_known_answer() -> None:
    assert rouge_l("The otter sleeps there", "An otter sleeps in dens") == pytest.approx(4 / 9)
    assert rouge_l("", "An otter") == 0
