"""Rows: what a plan will train on, where its data and its tokenizer lie on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.spec.plan import Plan
from harness.train.schedule import MicroBatch, divided, largest_micro_batch, planned_order
from harness.weights.headers import local_files

if TYPE_CHECKING:
    from harness.corpus.tokenised import Tokenised

LARGEST = 16 << 20  # bytes of data, which are tokenised within a few seconds


def largest_of_each(plans: Sequence[Plan]) -> list[MicroBatch | None]:
    """The largest forward pass of each plan's training, as its run will find it.

    None where nothing is trained, and where it cannot be known yet or takes long to find: the
    data are on the hub or more than ``LARGEST``, or the tokenizer has not been fetched.
    """
    known: dict[str, Tokenised | None] = {}
    found = []
    for plan in plans:
        key = plan.corpus.model_dump_json() + plan.model.model_dump_json()  # variants share it
        if plan.trains and key not in known:
            known[key] = _tokenised(plan)
        tokenised = known[key] if plan.trains else None
        found.append(None if tokenised is None else _largest(plan, tokenised))
    return found


def _tokenised(plan: Plan) -> Tokenised | None:
    folder = local_files(plan.model)
    if folder is None or plan.model.trust_remote_code or plan.corpus.source.startswith("hub:"):
        return None
    from harness.corpus.render import Renderer
    from harness.corpus.sources import find_source
    from harness.corpus.tokenised import tokenised_corpus
    from harness.weights.fetch import quiet_libraries
    from harness.weights.load import load_tokenizer

    try:
        if sum(path.stat().st_size for path in find_source(plan.corpus).files) > LARGEST:
            return None
        quiet_libraries()
        template, date = plan.model.chat_template, plan.corpus.chat_date
        return tokenised_corpus(plan.corpus, Renderer(load_tokenizer(folder), template, date))
    except HarnessError:  # what is wrong with them is told where they are checked
        return None


def _largest(plan: Plan, tokenised: Tokenised) -> MicroBatch | None:
    from harness.corpus.sequences import make_training_rows

    rows = make_training_rows(tokenised.train, plan.training)
    if not rows.rows:
        return None
    lengths = rows.tokens_per_row
    order = divided(planned_order(plan, rows), lengths, plan)
    return largest_micro_batch(order, lengths, plan.training.micro_batch_size)
