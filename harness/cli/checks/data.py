"""Data: what takes longer to know than a plan, but less than loading weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness import numbers
from harness.cli.app import say
from harness.cli.checks.division import advise
from harness.errors import StorageError, TooFew, UserError
from harness.spec.storage import free_bytes

if TYPE_CHECKING:
    from harness.corpus.corpus import Corpus
    from harness.spec.plan import Plan
    from harness.spec.suite import CorpusSpec

FEWEST_TREES = 2  # one tree has no spread, so nothing could be said of its score
SMALL = 2 << 20  # bytes of a corpus that is read dozens of times to find a division that would do
LEAST_FREE = 64 << 20  # bytes: records, items, logs and pages of a small run


def check_run(plans: Sequence[Plan], reports: Path) -> None:
    """Check for ``run`` what takes longer to know: the data, the tasks' rows, the disk.

    Raises:
        UserError: the corpus cannot be used, or the data of a task cannot be read.
        LeakageError: a held-out text occurs in training.
        StorageError: there is no room for results.
    """
    if not plans:
        return
    check_space(reports, LEAST_FREE)
    for corpus in dict.fromkeys(planned.corpus for planned in plans):
        if not corpus.source.startswith("hub:"):
            there = [planned for planned in plans if planned.corpus == corpus]
            for line in said_few(check_division(corpus, there)):
                say(line)
    check_tasks(plans[0])


def said_few(corpus: Corpus) -> Iterator[str]:
    """That no difference will be shown to be real, where too little is held out for intervals."""
    from harness.report.statistics.effects import FEWEST_CLUSTERS

    groups = len({one.tree_id for one in corpus.held_out})
    if groups < FEWEST_CLUSTERS:
        yield (
            f"{groups} held-out conversations give no interval, and no difference can be shown to "
            f"be real: that takes {FEWEST_CLUSTERS} or more (more data, or a larger "
            "corpus.held_out_fraction)"
        )


def check_division(spec: CorpusSpec, plans: Sequence[Plan]) -> Corpus:
    """Refuse a corpus of which a side is too small for ``plans``, with a division that would do.

    Returns the corpus otherwise.

    Raises:
        TooFew: with what to set, where something was found that can be.
    """
    try:
        return _divided(spec, plans)
    except TooFew as error:
        if _size(spec) <= SMALL:
            error.hint = advise(spec, plans, _divided) or error.hint
        raise


def _size(spec: CorpusSpec) -> int:
    """Bytes of a corpus on this machine."""
    from harness.corpus.sources import find_source

    return sum(path.stat().st_size for path in find_source(spec).files)


def _divided(spec: CorpusSpec, plans: Sequence[Plan]) -> Corpus:
    """A corpus on this machine that has what the plans ask for."""
    from harness.score.validation import check_validation

    corpus = check_corpus(spec)
    for planned in plans:
        check_validation(planned, corpus)
        check_bundled(planned, corpus)
    return corpus


def check_corpus(spec: CorpusSpec) -> Corpus:
    """Read a corpus on this machine, and refuse one whose score would have no spread."""
    from harness.corpus.corpus import build_corpus

    corpus = build_corpus(spec)
    trees = {one.tree_id for one in corpus.held_out}
    if len(trees) < FEWEST_TREES:
        raise TooFew(
            f"{len(trees)} held-out conversation: one gives no interval",
            where=corpus.result.name,
            expected=f"{FEWEST_TREES} or more independent held-out conversations",
            hint="a larger corpus.held_out_fraction, no held_out_limit of 1, or more data",
        )
    return corpus


def check_bundled(planned: Plan, corpus: Corpus) -> None:
    """Refuse a task that is made of the corpus where the corpus has too little for it."""
    from harness.score.bundled import check_documents
    from harness.score.catalogue import asked_tasks, document_kinds

    for task in asked_tasks(planned.score):
        for kind in document_kinds(task, planned.score.include_path):
            try:
                check_documents(kind, corpus)
            except UserError as error:
                error.what = f"task {task.name}: {error.what}"
                raise


def check_tasks(planned: Plan) -> None:
    """Refuse a task whose data cannot be read; those on the corpus's own documents need none."""
    from harness.score.catalogue import asked_tasks, document_kinds

    spec = planned.score
    if all(document_kinds(task, spec.include_path) for task in asked_tasks(spec)):
        return
    from harness.score.check import check_task_data
    from harness.weights.fetch import quiet_libraries

    quiet_libraries()
    check_task_data(planned)


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin where the disk has less than ``needed`` bytes free."""
    free = free_bytes(folder)
    if free < needed:
        raise StorageError(
            f"only {numbers.size(free)} are free on the disk of {folder}",
            where=folder,
            expected=f"{numbers.size(needed)} or more",
            hint="free some space, or choose another folder with --reports",
        )
