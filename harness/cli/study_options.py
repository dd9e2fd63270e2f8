"""Study options: which options of a study go together, and what those in words mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError

if TYPE_CHECKING:
    from harness.spec.study import Spending
    from harness.studies.drive import Shard


def refuse_with_look(*, plan: bool, status: bool, decides: bool, publish: Path | None) -> None:
    """Options that write something do not go with those that only show, nor those with another."""
    if plan and status:
        raise UserError(
            "--plan does not go with --status: one shows what would run, the other what has run",
            hint="leave out one of them",
        )
    if plan and decides:
        raise UserError(
            "--plan writes nothing, and --drop, --add and --more-seeds are written down",
            hint="leave out one of them",
        )
    if publish is not None and (plan or status):
        raise UserError(
            f"--publish does not go with {'--plan' if plan else '--status'}, which only shows",
            hint="leave out one of them",
        )


def refuse_planned(gpu: str, peak_share: float, *, plan: bool) -> None:
    """Options for a GPU that is not here go with a plan alone."""
    if gpu and not plan:
        raise UserError("--gpu without --plan", hint="a study runs on the devices of this machine")
    if peak_share and not gpu:
        raise UserError(
            "--peak-share without --plan and --gpu",
            expected="--plan --gpu rtx4090 --peak-share 0.4",
            hint="where a study runs, its own runs tell how long the others take",
        )


def parse_shard(text: str) -> Shard:
    """``3/8``: the third of eight parts; the whole study where nothing is said."""
    from harness.studies.drive import WHOLE, Shard

    if not text:
        return WHOLE
    number, _, count = text.partition("/")
    if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return Shard(int(number), int(count))
    raise UserError(f"--shard {text!r}", expected="a part of how many, for example 3/8")


def parse_budget(texts: list[str]) -> Spending | None:
    """``hours=2`` and ``runs=40``; None where nothing is said."""
    from harness.errors import InvalidFile
    from harness.spec.schema import parse
    from harness.spec.study import Spending

    if not texts:
        return None
    given: dict[str, object] = {}
    for text in texts:
        key, _, value = text.partition("=")
        try:
            given[key.strip()] = float(value) if "." in value else int(value)
        except ValueError:
            raise UserError(f"--budget {text!r}", expected="hours=2 or runs=40") from None
    try:
        return parse(Spending, given, where="--budget")
    except InvalidFile as error:
        error.hint = error.hint or "--budget hours=2 --budget runs=40"
        raise
