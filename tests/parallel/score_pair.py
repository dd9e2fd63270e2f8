"""Score pair: one of two processes that answer queries together; answers go into a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed

from harness.parallel.ranks import Joined
from harness.records.events import Silence
from harness.score.divided import help_score, likelihood_of, make_likelihood
from harness.score.evaluation import language_model
from tests.parallel.queries import BATCH_TOKENS, as_data, prompts, queries, subject_of


def main(out: str, weights: str) -> None:
    """Ask three times as the first device does, then both in the same calls."""
    torch.set_num_threads(1)
    ranks = Joined(cuda=False, silence_seconds=120)
    subject = subject_of(Path(weights), ranks)
    found = {}
    if ranks.index == 0:
        likelihood = make_likelihood(subject, Silence())
        for name in ("shared", "apart"):
            found[name] = as_data(likelihood.answer(queries(name)))
        found["answers"] = language_model(subject, likelihood).generate_until(prompts(), True)
        ranks.hand_out(None)
    else:
        help_score(subject)
    both = likelihood_of(subject.model, BATCH_TOKENS, Silence(), ranks)
    found["together"] = as_data(both.answer(queries("shared")))
    found["computed"] = both.computed_tokens
    Path(out, f"{ranks.index}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
