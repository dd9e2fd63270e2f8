"""Notices: the lines of a batch that stay on the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.notices import Notices
from harness.errors import CorpusError
from harness.records.events import Note, RunStarted
from harness.records.record import Problem
from harness.records.store import RunStore
from harness.runs.listener import RunResult
from harness.spec.plan import Substitution
from tests.planned import planned
from tests.store_records import record_of

PLAN = planned("qlora_nf4").model_copy(update={"substitutions": ()})
REPLACED = Substitution(key="training.packing", asked=True, used=False, reason="it would leak")
CHANGED = PLAN.model_copy(update={"substitutions": (REPLACED,)})
SENTENCE = "training.packing = True is replaced by False: it would leak"


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def notices(store: RunStore) -> Notices:
    return Notices(store)


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    """Everything that was printed, with line breaks as spaces."""
    found = capsys.readouterr()
    return " ".join((found.out + found.err).split())


def failed(**fields: object) -> Problem:
    given = {"kind": "RuntimeError", "phase": "train", "step": 7, "message": "no luck"}
    return Problem.model_validate({**given, "log_tail": "", **fields})


def test_what_is_replaced_is_said_when_the_run_starts(
    notices: Notices, capsys: pytest.CaptureFixture[str]
) -> None:
    notices.hear(CHANGED, Note.now(text="nothing of it"))
    assert printed(capsys) == ""
    notices.hear(CHANGED, RunStarted.now(host="here"))
    text = printed(capsys)
    assert "qlora_nf4" in text
    assert SENTENCE in text


def test_what_the_run_itself_replaced_is_said_at_its_end(
    notices: Notices, capsys: pytest.CaptureFixture[str]
) -> None:
    smaller = Substitution(
        key="training.micro_batch_size", asked=8, used=4, reason="a micro-batch of 8 did not fit"
    )
    plan = CHANGED.model_copy(update={"substitutions": (REPLACED, smaller)})
    notices.result(RunResult(CHANGED, record_of(plan)))
    text = printed(capsys)
    assert "micro_batch_size = 8 is replaced by 4" in text
    assert SENTENCE not in text, "it has been said"


def test_a_run_that_ended_well_says_nothing(
    notices: Notices, capsys: pytest.CaptureFixture[str]
) -> None:
    notices.result(RunResult(PLAN, record_of(PLAN)))
    assert printed(capsys) == ""


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({}, "failed in phase train, step 7: no luck"),
        ({"step": None}, "failed in phase train: no luck"),
        ({"step": None, "phase": None}, "failed: no luck"),
    ],
)
def test_how_a_run_ended_is_said_with_its_log(
    notices: Notices,
    store: RunStore,
    capsys: pytest.CaptureFixture[str],
    fields: dict[str, object],
    where: str,
) -> None:
    record = record_of(PLAN, status="failed", problem=failed(**fields))
    notices.result(RunResult(PLAN, record))
    text = printed(capsys)
    assert where in text
    assert store.folder(PLAN).log.name in text


def test_one_plan_that_cannot_be_run_is_the_command_s_own_error(
    notices: Notices, capsys: pytest.CaptureFixture[str]
) -> None:
    notices.begin([PLAN])
    notices.result(RunResult(PLAN, None, CorpusError("no such corpus")))
    assert printed(capsys) == "", "the command says it"


def test_of_several_plans_each_that_cannot_be_run_is_named(
    notices: Notices, capsys: pytest.CaptureFixture[str]
) -> None:
    notices.begin([PLAN, CHANGED])
    notices.result(RunResult(PLAN, None, CorpusError("no such corpus")))
    text = printed(capsys)
    assert "qlora_nf4" in text
    assert "no such corpus" in text


def test_stopping_says_what_a_second_ctrl_c_does(
    notices: Notices, capsys: pytest.CaptureFixture[str]
) -> None:
    notices.stopping()
    assert "Ctrl-C again ends them at once" in printed(capsys)


def test_a_listener_that_failed_is_named(
    notices: Notices, capsys: pytest.CaptureFixture[str]
) -> None:
    notices.lost("wandb", ValueError("no account"))
    assert "wandb failed and gets no more data: ValueError: no account" in printed(capsys)
