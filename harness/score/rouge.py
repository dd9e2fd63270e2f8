"""ROUGE-L: how much of an answer and of a reference is a common subsequence of their words."""

from __future__ import annotations

import re

WORD = re.compile(r"[a-z0-9]+")


def rouge_l(answer: str, reference: str) -> float:
    """F-measure of the longest common subsequence (Lin, 2004): 0 to 1.

    Words and sums are those of the package rouge-score without its stemmer, which takes a second
    to import: it loads nltk, and with it scikit-learn.
    """
    ours, theirs = (WORD.findall(text.lower()) for text in (answer, reference))
    common = _common(theirs, ours)
    if not common:
        return 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)


def _common(left: list[str], right: list[str]) -> int:
    """Length of the longest common subsequence, row by row of its table."""
    above = [0] * (len(right) + 1)
    for word in left:
        row = [0]
        for column, other in enumerate(right):
            row.append(above[column] + 1 if word == other else max(above[column + 1], row[-1]))
        above = row
    return above[-1]
