"""Message trees as the sources hold them, whatever their format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from harness.corpus.conversation import Role


@dataclass(frozen=True, slots=True)
class Node:
    """One message of a tree with its replies.

    ``rank`` is 0 for the reply that people liked best and None where nobody ranked;
    ``review_result`` is None where no review was finished and True where the data knows of no
    reviews. ``labels`` are mean ratings, 0 to 1.
    """

    id: str
    role: Role
    text: str
    language: str
    rank: int | None = None
    deleted: bool = False
    review_result: bool | None = None
    synthetic: bool = False
    labels: Mapping[str, float] = field(default_factory=dict)
    replies: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class MessageTree:
    """A first prompt and all that was said below it; ``state`` is OASST's, if it has one."""

    id: str
    state: str | None
    root: Node

    @property
    def language(self) -> str:
        """The language of the first prompt."""
        return self.root.language


def walk(root: Node) -> Iterator[Node]:
    """Every node, parents before children, siblings in order. Depth costs no recursion."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.replies))


def size(tree: MessageTree) -> int:
    """Messages in a tree."""
    return sum(1 for _ in walk(tree.root))


def prune(root: Node, keep: Callable[[Node], bool]) -> Node | None:
    """The tree without the nodes that ``keep`` refuses and all below them; None: all gone."""
    if not keep(root):
        return None
    order = [root]
    for node in order:
        order.extend(reply for reply in node.replies if keep(reply))
    made: dict[int, Node] = {}
    for node in reversed(order):
        replies = tuple(made[id(reply)] for reply in node.replies if id(reply) in made)
        made[id(node)] = (
            node
            if len(replies) == len(node.replies)
            and all(a is b for a, b in zip(replies, node.replies, strict=True))
            else replace(node, replies=replies)
        )
    return made[id(root)]
