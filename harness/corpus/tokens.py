"""Tokens: one conversation as token ids and the loss mask over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """One conversation in tokens.

    ``input_ids`` [tokens] int32; ``loss_mask`` [tokens] bool, true on the tokens of assistant
    texts and of the end-of-turn token after each.
    """

    conversation_id: str
    tree_id: str
    input_ids: IntArray
    loss_mask: BoolArray
