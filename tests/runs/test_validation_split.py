"""A trial for tuning never sees the held-out side: it is not there to be scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import InvalidFile, UserError
from harness.records.store import RunFolder
from harness.runs.draft import RunLog
from harness.runs.options import DEFAULT_OPTIONS
from harness.runs.run import Run
from harness.score.take import Subject, take_scores
from tests.runs.small_run import Small, make_small, tree

ON_VALIDATION = ("corpus.validation_fraction=0.2", "score.split=validation")


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A suite with trees enough for three sides."""
    small = make_small(tmp_path_factory.mktemp("roomy"))
    lines = [json.dumps(tree(index)) + "\n" for index in range(60)]
    (small.folder / "trees.jsonl").write_text("".join(lines))
    return small


def prepared(small: Small, folder: Path, *settings: str) -> Subject:
    """What a run would score, with the model as it was before training."""
    from harness.weights.load import load_base

    plan = small.plan(*settings)
    with RunLog(folder / "events.jsonl") as log:
        run = Run(plan, RunFolder(folder), log, DEFAULT_OPTIONS)
        source = small.folder / "weights"
        corpus, renderer, _ = run.prepare(source)
        return run.subject(load_base(plan, source), corpus, renderer)


def test_a_trial_scores_validation_and_holds_no_held_out_conversation(
    roomy: Small, tmp_path: Path
) -> None:
    subject = prepared(roomy, tmp_path, *ON_VALIDATION, "score.generations=2")
    assert (subject.corpus.held_out, subject.corpus.pairs) == ((), ())
    with RunLog(tmp_path / "more.jsonl") as log:
        found = take_scores(subject, "after", tmp_path, log)
    assert [(one.task, one.metric) for one in found.scores] == [
        ("validation", "perplexity"),
        ("validation", "bits_per_byte"),
    ]
    assert found.generations == ()
    assert found.scores[0].n == len(subject.corpus.validation)


def test_scoring_the_held_out_side_of_a_trial_is_refused(roomy: Small, tmp_path: Path) -> None:
    """Whoever swaps the plan for one of the verdict finds nothing to score."""
    subject = prepared(roomy, tmp_path, *ON_VALIDATION)
    verdict = roomy.plan("corpus.validation_fraction=0.2")
    swapped = Subject(subject.model, subject.tokenizer, subject.renderer, subject.corpus, verdict)
    with RunLog(tmp_path / "more.jsonl") as log, pytest.raises(UserError, match="no held-out"):
        take_scores(swapped, "after", tmp_path, log)


def test_tuning_without_a_validation_split_is_refused(roomy: Small) -> None:
    with pytest.raises(InvalidFile, match=r"needs a corpus\.validation_fraction above 0"):
        roomy.plan("score.split=validation")


def test_a_trial_is_another_run_than_the_verdict_and_drops_what_it_does_not_take(
    roomy: Small,
) -> None:
    settings = ("corpus.validation_fraction=0.2", "score.generations=2", "score.preference=true")
    trial, verdict = roomy.plan(*settings, "score.split=validation"), roomy.plan(*settings)
    assert trial.fingerprint != verdict.fingerprint
    assert (trial.score.generations, trial.score.preference) == (0, False)
    without = roomy.plan("corpus.validation_fraction=0.2", "score.split=validation")
    assert trial.fingerprint == without.fingerprint, "what is not scored decides nothing"
