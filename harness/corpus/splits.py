"""Splits: which trees are held out, and that no text of theirs is trained on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.corpus.conversation import Conversation, PreferencePair
from harness.errors import LeakageError
from harness.records.events import Progress


def share_of(*parts: str) -> float:
    """A number in [0, 1) that depends on the strings only, evenly spread over strings."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_held_out(tree_id: str, language: str, fraction: float) -> bool:
    """Whether a tree is held out: by hash, at the same rate in every language.

    No other tree has a say, so adding data never moves a tree. The price is that a language's
    share is exact only in the mean; the funnel tells how many trees of each came out.
    """
    return share_of(language, tree_id) < fraction


def normalised(text: str) -> str:
    """A text as the leakage check compares it: case and white space do not count."""
    return " ".join(text.split()).casefold()


def held_out_texts(
    held_out: Iterable[Conversation], pairs: Iterable[PreferencePair]
) -> dict[str, str]:
    """Every normalised text that scores look at, with the id of a message that has it."""
    messages = [message for one in held_out for message in one.messages]
    for pair in pairs:
        messages += [*pair.context, pair.better, pair.worse]
    return {normalised(message.text): message.id for message in messages}


def without_leaks(
    train: Sequence[Conversation], texts: dict[str, str]
) -> tuple[list[Conversation], Counter[str]]:
    """The training conversations with none of ``texts`` in them, and the texts found."""
    kept, found = [], Counter[str]()
    for conversation in train:
        shared = {normalised(message.text) for message in conversation.messages} & texts.keys()
        found.update(shared)
        if not shared:
            kept.append(conversation)
    return kept, found


def check_leakage(train: Sequence[Conversation], texts: dict[str, str]) -> None:
    """Fail if a held-out text occurs in training.

    Raises:
        LeakageError: with the number of conversations and the texts that most of them have.
    """
    kept, found = without_leaks(train, texts)
    if not found:
        return
    shown = "; ".join(
        f"{text[:60]!r} (held-out message {texts[text]}, {count} × in training)"
        for text, count in found.most_common(3)
    )
    raise LeakageError(
        f"{len(found)} held-out texts occur in {len(train) - len(kept)} training conversations too",
        where=shown,
        expected="no text on both sides, however white space and case are written",
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
