"""Bundled tasks: their names, and the documents that the harness makes for them of a corpus."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from harness.corpus.conversation import Message
from harness.corpus.corpus import Corpus
from harness.corpus.render import Renderer
from harness.errors import TooFew, UnknownName
from harness.spec.storage import write_bytes

TASKS = Path(__file__).parent / "tasks"
CHOICES = 4
OPENING = 64  # characters; telling replies apart gets easier, and dearer, with more
QUESTION = 400  # characters


def task_names() -> list[str]:
    """Names of the bundled tasks: the files in ``tasks``."""
    return sorted(path.stem for path in TASKS.glob("*.yaml"))


def bundled_kinds(name: str) -> list[str]:
    """Kinds of documents that a bundled task asks for, read from its file alone."""
    import yaml

    top = yaml.compose((TASKS / f"{name}.yaml").read_text(encoding="utf-8"))
    settings = next((value for key, value in top.value if key.value == "dataset_kwargs"), None)
    kinds = [] if settings is None else [v.value for k, v in settings.value if k.value == "kind"]
    return sorted(kinds)


def bundled_metrics(name: str) -> list[str]:
    """Metrics of a bundled task, read from its file alone."""
    import yaml

    top = yaml.compose((TASKS / f"{name}.yaml").read_text(encoding="utf-8"))
    listed = next(value for key, value in top.value if key.value == "metric_list")
    return [v.value for one in listed.value for k, v in one.value if k.value == "metric"]


def write_documents(kind: str, corpus: Corpus, renderer: Renderer, folder: Path) -> None:
    """Write documents that a bundled task asks for to ``folder/<kind>.jsonl``.

    Raises:
        UnknownName: there is no such kind.
        TooFew: the corpus has none.
    """
    write_bytes(folder / f"{kind}.jsonl", _lines(_documents(kind, corpus, renderer)))


def check_documents(kind: str, corpus: Corpus) -> None:
    """Whether a corpus has what a bundled task asks for; needs no tokenizer.

    Raises:
        UnknownName: there is no such kind.
        TooFew: it has not.
    """
    _documents(kind, corpus, _Unrendered())


class _Renders(Protocol):
    """What documents need of a renderer."""

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """Messages as a prompt."""


class _Unrendered:
    """Stands for a renderer where nobody reads the prompts."""

    def prompt_text(self, messages: Sequence[Message]) -> str:  # noqa: ARG002
        """Nothing."""
        return ""


def _documents(kind: str, corpus: Corpus, renderer: _Renders) -> list[dict[str, Any]]:
    if kind not in DOCUMENTS:
        raise UnknownName("kind of documents", kind, list(DOCUMENTS), where="dataset_kwargs")
    needs, make = DOCUMENTS[kind]
    rows = list(make(corpus, renderer))
    if not rows:
        raise TooFew(
            f"no {kind} can be made of {len(corpus.held_out)} held-out conversations",
            where=corpus.result.name,
            expected=needs,
            hint="more data, or --set score.tasks=none",
        )
    return rows


def opening_choices(corpus: Corpus, renderer: _Renders) -> Iterator[dict[str, Any]]:
    """One document for every held-out reply: its message, its opening and those of three others.

    Replies of the held-out conversations come first, then their ranked siblings. The others
    come from other trees, drawn with a seed made of the reply's own id.
    """
    found = list(_replies(corpus))
    openings = [(tree, opening(reply.text)) for tree, _, reply in found]
    for (tree, before, reply), (_, own) in zip(found, openings, strict=True):
        others = sorted({text for other, text in openings if other != tree} - {own})
        if len(others) < CHOICES - 1:
            continue
        drawn = random.Random(reply.id)  # noqa: S311 - reproducible, nothing secret
        choices = [own, *drawn.sample(others, CHOICES - 1)]
        drawn.shuffle(choices)
        yield {
            "item": reply.id,
            "cluster": tree,
            "prompt": renderer.prompt_text(
                [Message(before.role, cut(before.text, QUESTION), before.id)]
            ),
            "choices": choices,
            "label": choices.index(own),
        }


def _replies(corpus: Corpus) -> Iterator[tuple[str, Message, Message]]:
    """Tree, message and reply of every held-out reply, each once."""
    seen: set[str] = set()
    for conversation in corpus.held_out:
        for before, reply in conversation.exchanges():
            if reply.trained and reply.id not in seen:
                seen.add(reply.id)
                yield conversation.tree_id, before, reply
    for pair in corpus.pairs:
        for reply in (pair.better, pair.worse):
            if reply.id not in seen:
                seen.add(reply.id)
                yield pair.tree_id, pair.context[-1], reply


def ranked_pairs(corpus: Corpus, renderer: _Renders) -> Iterator[dict[str, Any]]:
    """One document for every pair of ranked siblings, the better reply first."""
    for pair in corpus.pairs:
        yield {
            "item": pair.id,
            "cluster": pair.tree_id,
            "prompt": renderer.prompt_text(pair.context),
            "choices": [pair.better.text, pair.worse.text],
            "label": 0,
        }


def replies(corpus: Corpus, renderer: _Renders) -> Iterator[dict[str, Any]]:
    """One document for every held-out reply, with the prompt before it."""
    for tree, before, reply in _replies(corpus):
        yield {
            "item": reply.id,
            "cluster": tree,
            "prompt": renderer.prompt_text([before]),
            "reply": reply.text,
        }


def opening(text: str) -> str:
    """The first words of a reply, all on one line."""
    return cut(" ".join(text.split()), OPENING)


def cut(text: str, size: int) -> str:
    """At most ``size`` characters, ending with a whole word where there is one."""
    if len(text) <= size:
        return text
    return text[:size].rsplit(maxsplit=1)[0] if " " in text[:size].strip() else text[:size]


DOCUMENTS: dict[str, tuple[str, Callable[[Corpus, _Renders], Iterable[dict[str, Any]]]]] = {
    "opening_choices": (f"different replies in {CHOICES} or more of them", opening_choices),
    "ranked_pairs": ("ranked replies to one message", ranked_pairs),
    "replies": ("held-out replies", replies),
}


def _lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
