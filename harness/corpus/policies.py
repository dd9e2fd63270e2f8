"""Policies: which root-to-leaf paths of a tree become conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.corpus.conversation import Conversation, Message, PreferencePair
from harness.corpus.trees import MessageTree, Node
from harness.spec.suite import CorpusSpec

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
    return Message(node.role, node.text, node.id)


def conversations(tree: MessageTree, spec: CorpusSpec) -> list[Conversation]:
    """The conversations of one tree: a path without a trailing user message, each only once."""
    made: dict[str, Conversation] = {}
    for path in select_paths(tree.root, spec):
        end = len(path) if path[-1].role == "assistant" else len(path) - 1
        if end < 2:
            continue
        last = path[end - 1]
        if last.id not in made:
            messages = tuple(to_message(node) for node in path[:end])
            made[last.id] = Conversation(last.id, tree.id, tree.language, messages)
    return list(made.values())


def preference_pairs(tree: MessageTree) -> Iterator[PreferencePair]:
    """Every pair of ranked sibling replies of different rank, with their context."""
    stack: list[Path] = [(tree.root,)]
    while stack:
        path = stack.pop()
        ranked = [node for node in by_rank(path[-1].replies) if node.rank is not None]
        context = tuple(to_message(node) for node in path)
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
