"""Splits: which trees are held out, and that no text of theirs is trained on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness.corpus.conversation import Conversation, PreferencePair
from harness.errors import LeakageError
from harness.records.events import Progress
from harness.spec.suite import CorpusSpec


def share_of(*parts: str) -> float:
    """A number in [0, 1) that depends on the strings only, evenly spread over strings."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


Side = Literal["train", "validation", "held_out"]


def side_of(tree_id: str, language: str, spec: CorpusSpec) -> Side:
    """The side that a tree belongs to: by hash, at the same rate in every language.

    No other tree has a say, so adding data never moves a tree. The price is that a language's
    share is exact only in the mean; the funnel tells how many trees of each came out.
    Validation trees come out of the training side: asking for some moves no held-out tree.
    """
    share = share_of(language, tree_id)
    if share < spec.held_out_fraction:
        return "held_out"
    if share < spec.held_out_fraction + spec.validation_fraction:
        return "validation"
    return "train"


def normalised(text: str) -> str:
    """A text as the leakage check compares it: case and white space do not count."""
    return " ".join(text.split()).casefold()


Exchange = tuple[str, str]
"""A message and the reply to it, both normalised."""


def exchanges(conversation: Conversation) -> set[Exchange]:
    """Every message of a conversation with its reply."""
    return {
        (normalised(before.text), normalised(reply.text))
        for before, reply in conversation.exchanges()
    }


def scored_exchanges(
    conversations: Iterable[Conversation], pairs: Iterable[PreferencePair]
) -> dict[Exchange, str]:
    """Every exchange that scores look at, with the id of a reply that has it."""
    found = {
        (normalised(before.text), normalised(reply.text)): reply.id
        for conversation in conversations
        for before, reply in conversation.exchanges()
    }
    for pair in pairs:
        for reply in (pair.better, pair.worse):
            found[normalised(pair.context[-1].text), normalised(reply.text)] = reply.id
    return found


def without_leaks(
    train: Sequence[Conversation], scored: Mapping[Exchange, str]
) -> tuple[list[Conversation], Counter[Exchange]]:
    """The conversations with none of the ``scored`` exchanges in them, and those found.

    A reply alone is no leak: class labels and thanks are the same in many conversations.
    """
    kept, found = [], Counter[Exchange]()
    for conversation in train:
        shared = exchanges(conversation) & scored.keys()
        found.update(shared)
        if not shared:
            kept.append(conversation)
    return kept, found


def check_leakage(
    train: Sequence[Conversation], scored: Mapping[Exchange, str], sides: str = "held-out"
) -> None:
    """Fail if an exchange that is scored occurs in training.

    Raises:
        LeakageError: with the number of conversations and the exchanges that most of them have.
    """
    kept, found = without_leaks(train, scored)
    if not found:
        return
    shown = "; ".join(
        f"{prompt[:40]!r} answered by {reply[:40]!r} "
        f"({sides} message {scored[prompt, reply]}, {count} × in training)"
        for (prompt, reply), count in found.most_common(3)
    )
    raise LeakageError(
        f"{len(found)} {sides} prompts occur with their replies in "
        f"{len(train) - len(kept)} training conversations too",
        where=shown,
        expected="no prompt with its reply on both sides, however white space and case are written",
        hint='on_leak = "drop" in [corpus] leaves those training conversations out and counts them',
    )


SHINGLE_CHARACTERS = 5
PERMUTATIONS = 128
MIXER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: spreads every bit upwards
Shingles = npt.NDArray[np.uint32]


def near_duplicates(
    conversations: Sequence[Conversation], threshold: float, progress: Progress
) -> dict[int, int]:
    """Which conversations to leave out: {index: index of the earlier one that it repeats}.

    Candidates come from MinHash signatures in an LSH index (datasketch); the Jaccard similarity
    of the sets of 5-character shingles, computed exactly, decides. Paths of one tree share
    their beginning by design and are not compared.
    """
    from datasketch import MinHash, MinHashLSH

    index: Any = MinHashLSH(threshold=min(threshold, 0.999), num_perm=PERMUTATIONS)
    known: dict[int, Shingles] = {}
    found: dict[int, int] = {}
    for number, conversation in enumerate(conversations):
        if number % 500 == 0:
            progress.advance(number, len(conversations))
        grams = shingles(conversation)
        signature = MinHash(num_perm=PERMUTATIONS, hashfunc=int)
        signature.update_batch(grams)
        for other in sorted(index.query(signature)):
            elsewhere = conversations[other].tree_id != conversation.tree_id
            if elsewhere and jaccard(grams, known[other]) >= threshold:
                found[number] = other
                break
        else:
            index.insert(number, signature)
            known[number] = grams
    return found


def shingles(conversation: Conversation) -> Shingles:
    """Hashes, sorted and unique, of every run of 5 characters of the normalised texts."""
    text = normalised(" ".join(message.text for message in conversation.messages))
    codes = np.frombuffer(text.ljust(SHINGLE_CHARACTERS).encode("utf-32-le"), dtype=np.uint32)
    hashes = np.zeros(len(codes) - SHINGLE_CHARACTERS + 1, dtype=np.uint64)
    for offset in range(SHINGLE_CHARACTERS):
        hashes = hashes * MIXER + codes[offset : offset + len(hashes)]
    hashes = (hashes ^ (hashes >> np.uint64(29))) * MIXER
    return np.unique((hashes >> np.uint64(32)).astype(np.uint32))


def jaccard(one: Shingles, other: Shingles) -> float:
    """|A ∩ B| / |A ∪ B| of two sorted unique arrays."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)
