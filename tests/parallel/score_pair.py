"""Score pair: one of two processes that answer queries together; answers go into a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed

from harness.parallel.ranks import Joined
from harness.records.events import Silence
from harness.score.divided import DividedLikelihood, help_score, likelihood_of
from tests.parallel.queries import BATCH_TOKENS, as_data, queries
from tests.train.tiny import tiny_model


def main(out: str) -> None:
    """Ask twice as the first device does, then both in the same calls."""
    torch.set_num_threads(1)
    ranks = Joined(cuda=False, silence_seconds=120)
    model = tiny_model().eval()
    found = {}
    if ranks.index == 0:
        ranks.hand_out("open")
        likelihood = DividedLikelihood(model, BATCH_TOKENS, Silence(), ranks)
        for name in ("shared", "apart"):
            found[name] = as_data(likelihood.answer(queries(name)))
        ranks.hand_out(None)
    else:
        help_score(model, BATCH_TOKENS, ranks)
    both = likelihood_of(model, BATCH_TOKENS, Silence(), ranks)
    found["together"] = as_data(both.answer(queries("shared")))
    found["computed"] = both.computed_tokens
    Path(out, f"{ranks.index}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
