"""Near duplicates: conversations of different trees whose texts are almost the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.corpus.conversation import Conversation
from harness.corpus.splits import normalised
from harness.records.events import Progress

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
