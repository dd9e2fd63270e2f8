"""Trust: whether a stored run's scores are still the ones that its items give."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from harness.errors import InvalidFile
from harness.records.record import Score
from harness.records.store import BrokenRun, RunFolder, StoredRun, is_whole
from harness.report.pairing import read_table

CLOSE = 1e-9  # of the value: sums of the same numbers, perhaps by another library


def trusted(found: Iterable[StoredRun | BrokenRun]) -> Iterator[StoredRun | BrokenRun]:
    """``found`` with every run refused whose scores its items contradict.

    Items that are not there contradict nothing: a published report may lie without them.
    """
    for run in found:
        flaw = _flaw(run) if isinstance(run, StoredRun) else None
        yield run if flaw is None else BrokenRun(run.folder, flaw)


def _flaw(run: StoredRun) -> InvalidFile | None:
    for score in run.record.scores:
        if score.items is None or not (run.folder.path / score.items).is_file():
            continue
        what = _contradiction(score, run.folder)
        if what is not None:
            return InvalidFile(
                f"{score.metric} of {score.task} ({score.stage} training): {what}",
                where=run.folder.path / score.items,
                hint="restore the file from a copy, or run the variant again with --force",
            )
    return None


def _contradiction(score: Score, folder: RunFolder) -> str | None:
    """Why the score cannot be taken from its record; digests are newer than some records."""
    if score.items_sha256 is not None:
        whole = is_whole(score, folder.path)
        return None if whole else "its items have changed since they were written"
    found = _value(score, folder)
    if found is None:
        return "its items cannot be read"
    if not math.isclose(found, score.value, rel_tol=CLOSE, abs_tol=CLOSE):
        return f"its items give {found:.6g}, the record says {score.value:.6g}"
    return None


def _value(score: Score, folder: RunFolder) -> float | None:
    """The value by its definition, from the items."""
    table = read_table(folder.path / str(score.items))
    if table is None:
        return None
    below = math.fsum(table["denominator"])
    ratio = math.fsum(table["numerator"]) / below if below else math.nan
    try:
        return math.exp(ratio) if score.transform == "exp" else ratio
    except OverflowError:
        return math.inf
