"""Selection: which messages and which paths of a tree become conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.corpus.conversation import Conversation, Message, PreferencePair
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


Path = tuple[Node, ...]
UNRANKED = 1 << 30


def by_rank(replies: tuple[Node, ...]) -> list[Node]:
    """Replies best first; unranked ones after all ranked ones, in their order of appearance."""
    return sorted(replies, key=lambda node: UNRANKED if node.rank is None else node.rank)


def best_path(root: Node) -> Iterator[Path]:
    """The one path that takes the best-ranked reply at every turn, as Guanaco's data does."""
    path = [root]
    while path[-1].replies:
        path.append(by_rank(path[-1].replies)[0])
    yield tuple(path)


def paths_where(root: Node, allowed: Callable[[Node], bool]) -> Iterator[Path]:
    """Every path from the root as far down as the nodes are ``allowed``."""
    stack: list[tuple[Node, ...]] = [(root,)]
    while stack:
        path = stack.pop()
        replies = [node for node in by_rank(path[-1].replies) if allowed(node)]
        if not replies:
            yield path
        stack.extend((*path, node) for node in reversed(replies))


def all_paths(root: Node) -> Iterator[Path]:
    """Every root-to-leaf path."""
    yield from paths_where(root, lambda _node: True)


def top_paths(root: Node, max_rank: int) -> Iterator[Path]:
    """Every path whose ranked messages have rank ``max_rank`` or better (0 is best).

    An unranked message is allowed: it is usually the only reply, or a follow-up prompt.
    """
    yield from paths_where(root, lambda node: node.rank is None or node.rank <= max_rank)


def one_reply(root: Node) -> Iterator[Path]:
    """The first prompt with its best-ranked reply, nothing further down."""
    yield (root, *by_rank(root.replies)[:1])


def select_paths(root: Node, spec: CorpusSpec) -> Iterator[Path]:
    """The paths that the suite's policy takes from one tree."""
    if spec.policy == "top_paths":
        yield from top_paths(root, spec.max_rank)
    else:
        yield from {"best_path": best_path, "all_paths": all_paths, "one_reply": one_reply}[
            spec.policy
        ](root)


def to_message(node: Node) -> Message:
    """A node as a turn."""
    return Message(node.role, node.text, node.id, node.trained)


def _system(tree: MessageTree) -> tuple[Message, ...]:
    if not tree.system:
        return ()
    return (Message("system", tree.system, f"{tree.root.id}/system"),)


def conversations(tree: MessageTree, spec: CorpusSpec) -> list[Conversation]:
    """The conversations of one tree: a path without a trailing user message, each only once."""
    made: dict[str, Conversation] = {}
    for path in select_paths(tree.root, spec):
        end = len(path) if path[-1].role == "assistant" else len(path) - 1
        if end < 2:
            continue
        if not any(node.trained for node in path[:end] if node.role == "assistant"):
            continue
        last = path[end - 1]
        if last.id not in made:
            messages = (*_system(tree), *(to_message(node) for node in path[:end]))
            made[last.id] = Conversation(last.id, tree.id, tree.language, messages)
    return list(made.values())


def preference_pairs(tree: MessageTree) -> Iterator[PreferencePair]:
    """Every pair of ranked sibling replies of different rank, with their context."""
    stack: list[Path] = [(tree.root,)]
    while stack:
        path = stack.pop()
        ranked = [node for node in by_rank(path[-1].replies) if node.rank is not None]
        context = (*_system(tree), *(to_message(node) for node in path))
        for index, better in enumerate(ranked):
            for worse in ranked[index + 1 :]:
                if better.role == "assistant" and better.rank != worse.rank:
                    yield PreferencePair(
                        f"{better.id}>{worse.id}",
                        tree.id,
                        context,
                        to_message(better),
                        to_message(worse),
                    )
        stack.extend((*path, node) for node in reversed(path[-1].replies))
