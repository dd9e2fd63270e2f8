"""Filters: which messages of a tree may be used, one step per rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.corpus.trees import MessageTree, Node
from harness.spec.suite import CorpusSpec


@dataclass(frozen=True, slots=True)
class Filter:
    """A rule. A message that breaks it is left out together with all below it.

    ``keeps_tree`` looks at the whole tree first.
    """

    name: str
    rule: str
    keeps: Callable[[Node], bool]
    keeps_tree: Callable[[MessageTree], bool] = lambda _tree: True


def filters(spec: CorpusSpec) -> Iterator[Filter]:
    """The filters that a suite asks for, in order."""
    if spec.tree_states:
        states = frozenset(spec.tree_states)
        yield Filter(
            "tree state",
            f"not {' or '.join(spec.tree_states)}",
            lambda _node: True,
            lambda tree: tree.state is None or tree.state in states,
        )
    if spec.languages:
        languages = frozenset(spec.languages)
        yield Filter(
            "language", f"not {', '.join(spec.languages)}", lambda n: n.language in languages
        )
    if not spec.keep_deleted:
        yield Filter("deleted", "deleted by a moderator or its author", lambda n: not n.deleted)
    yield from _review(spec)
    if not spec.keep_synthetic:
        yield Filter("synthetic", "written by a model", lambda n: not n.synthetic)
    yield from _labels(spec)
    yield from _lengths(spec)


def _review(spec: CorpusSpec) -> Iterator[Filter]:
    if spec.review == "accepted":
        yield Filter("review", "rejected or not reviewed", lambda n: n.review_result is True)
    elif spec.review == "not_rejected":
        yield Filter("review", "rejected", lambda n: n.review_result is not False)


def _labels(spec: CorpusSpec) -> Iterator[Filter]:
    """Rating thresholds. A message without the rating passes: unknown is not bad."""
    if (low := spec.min_quality) is not None:
        yield Filter(
            "quality",
            f"reply rated below {low:g}",
            lambda n: n.role == "user" or n.labels.get("quality", 1.0) >= low,
        )
    if (toxic := spec.max_toxicity) is not None:
        yield Filter(
            "toxicity", f"rated above {toxic:g}", lambda n: n.labels.get("toxicity", 0.0) <= toxic
        )
    if (spam := spec.max_spam) is not None:
        yield Filter("spam", f"rated above {spam:g}", lambda n: n.labels.get("spam", 0.0) <= spam)


def _lengths(spec: CorpusSpec) -> Iterator[Filter]:
    shortest, longest = spec.min_characters, spec.max_characters
    limits = f"under {shortest:,} characters"
    if longest is not None:
        limits += f" or over {longest:,}"
    yield Filter(
        "length",
        limits,
        lambda n: len(n.text) >= shortest and (longest is None or len(n.text) <= longest),
    )
