"""Message trees as the sources hold them, and how flat messages grow into them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.corpus.conversation import Speaker
from harness.corpus.fields import ColumnUses, Complaints, Location, wrong
from harness.corpus.files import DataRecord


@dataclass(frozen=True, slots=True)
class Node:
    """One message of a tree with its replies.

    ``rank`` is 0 for the reply that people liked best and None where nobody ranked;
    ``review_result`` is None where no review was finished and True where the data knows of no
    reviews. ``labels`` are mean ratings, 0 to 1. A reply that is not ``trained`` is context only.
    """

    id: str
    role: Speaker
    text: str
    language: str
    rank: int | None = None
    deleted: bool = False
    review_result: bool | None = None
    synthetic: bool = False
    trained: bool = True
    labels: Mapping[str, float] = field(default_factory=dict)
    replies: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class MessageTree:
    """A first prompt and all that was said below it.

    ``state`` is OASST's, if it has one; ``system`` is the system message in front of it all.
    """

    id: str
    state: str | None
    root: Node
    system: str = ""

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


@dataclass(frozen=True, slots=True)
class Leaf:
    """A message not yet in its tree."""

    place: Location
    node: Node
    parent: str | None
    tree: str | None = None
    state: str | None = None


@dataclass(slots=True)
class TreeGrower:
    """Grows trees. Orphans are normal in files cut by language, so they are counted, not bad.

    * a parent that is not in the file: the message and all below it are ``orphans``
    * an id that was there before: bad; the first one stays
    * a cycle of parents: bad, each message of it and all below
    * a root written by the assistant, or a reply by the same role as its parent: bad, with all
      below it
    """

    complaints: Complaints
    orphans: int = 0
    columns: ColumnUses = field(default_factory=ColumnUses)
    _seen: set[str] = field(default_factory=set)

    def admit(self, leaf: Leaf) -> bool:
        """Whether the message's id is new; otherwise it is a complaint."""
        if leaf.node.id not in self._seen:
            self._seen.add(leaf.node.id)
            return True
        place = leaf.place.at("message_id")
        self.complaints.add(wrong("message id occurs twice", place, "unique ids"))
        return False

    def grow(self, leaves: Iterable[Leaf]) -> Iterator[MessageTree]:
        """Trees of admitted leaves, in the order of their roots, replies in that of the leaves."""
        known = {leaf.node.id: leaf for leaf in leaves}
        below: dict[str | None, list[Leaf]] = defaultdict(list)
        for leaf in known.values():
            below[leaf.parent].append(leaf)
        for root in below[None]:
            tree = self._tree(root, below, known)
            if tree is not None:
                yield tree
        self._count_lost(below, known)

    def _tree(
        self, root: Leaf, below: dict[str | None, list[Leaf]], known: dict[str, Leaf]
    ) -> MessageTree | None:
        order = [root] if self._fits(root, "assistant") else []
        for leaf in order:
            order += [
                reply for reply in below.get(leaf.node.id, ()) if self._fits(reply, leaf.node.role)
            ]
        _forget(root, below, known)
        if not order:
            return None
        made: dict[str, Node] = {}
        for leaf in reversed(order):
            replies = (made.get(reply.node.id) for reply in below.get(leaf.node.id, ()))
            kept = tuple(reply for reply in replies if reply is not None)
            made[leaf.node.id] = replace(leaf.node, replies=kept) if kept else leaf.node
        return MessageTree(root.tree or root.node.id, root.state, made[root.node.id])

    def _fits(self, leaf: Leaf, before: str) -> bool:
        if leaf.node.role != before:
            return True
        what = "a tree starts with the assistant"
        if leaf.parent is not None:
            what = "a message has the role of its parent"
        self.complaints.add(wrong(what, leaf.place.at("role"), "user and assistant in turn"))
        return False

    def _count_lost(self, below: dict[str | None, list[Leaf]], known: dict[str, Leaf]) -> None:
        """What no root leads to hangs below a missing parent, or on a cycle."""
        heads = [leaf for leaf in known.values() if leaf.parent not in known]
        before = len(known)
        for leaf in heads:
            _forget(leaf, below, known)
        self.orphans += before - len(known)
        for leaf in known.values():
            place = leaf.place.at("parent_id")
            self.complaints.add(wrong("parents form a cycle", place, "a parent further up"))


def _forget(root: Leaf, below: dict[str | None, list[Leaf]], known: dict[str, Leaf]) -> None:
    """Take a message and all below it out of ``known``."""
    stack = [root]
    while stack:
        leaf = stack.pop()
        known.pop(leaf.node.id, None)
        stack.extend(below.get(leaf.node.id, ()))


@dataclass(frozen=True, slots=True)
class Format:
    """One layout: what it looks like, whether a record has it, and how records become trees.

    To add one, write this in a file of its own and register it in
    :mod:`harness.corpus.formats`, or by an entry point of a package of yours.
    """

    description: str
    matches: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Iterable[DataRecord], TreeGrower], Iterator[MessageTree]]
