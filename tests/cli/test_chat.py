"""Results answer a person: streamed, one or several side by side."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from harness.cli.chat import answer_all
from harness.corpus.conversation import Message
from harness.deploy.speak import AnswerStyle, SpeakerRequest, open_speaker, user_says
from harness.errors import CorpusError
from harness.records.events import Silence
from harness.spec.form import parse_form
from tests.forms.tiny_results import Tiny, make_plan, make_result


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A finished run of LoRA on a random llama."""
    folder = tmp_path_factory.mktemp("tiny")
    return make_result(folder, make_plan(folder))


def speaker(tiny: Tiny, scratch: Path, form: str = "adapter", **decoding: float) -> object:
    scratch.mkdir(exist_ok=True)
    wanted = SpeakerRequest(
        parse_form(form), None, AnswerStyle(**{"max_new_tokens": 12, **decoding})
    )
    return open_speaker(tiny.run, wanted, scratch, Silence())


def test_a_stream_is_the_answer_in_pieces(tiny: Tiny, tmp_path: Path) -> None:
    found = speaker(tiny, tmp_path)
    asked = user_says("Where do otters sleep?")
    pieces = list(found.stream(asked))
    assert "".join(pieces).strip() == found.answer(asked)


def test_the_merged_form_says_the_same(tiny: Tiny, tmp_path: Path) -> None:
    asked = user_says("Where do otters sleep?")
    answers = {speaker(tiny, tmp_path / form, form).answer(asked) for form in ("adapter", "merged")}
    assert len(answers) == 1


def test_drawn_answers_repeat_with_their_seed(tiny: Tiny, tmp_path: Path) -> None:
    asked = user_says("Where do otters sleep?")
    drawn = [
        speaker(tiny, tmp_path / str(n), temperature=1.5, seed=seed).answer(asked)
        for n, seed in enumerate((1, 1, 2))
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_conversation_past_the_context_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="the conversation has"):
        speaker(tiny, tmp_path).answer(user_says("otter " * 200))


def test_bytes_that_are_no_text_are_not_sent_to_the_model(tiny: Tiny) -> None:
    command = ["chat", str(tiny.run.folder.path), "--max-new-tokens", "2", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *command],
        input=b"caf\xe9\nhello\n\n",
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"no ascii text" in done.stdout
    assert done.stdout.count(b"seed 0: ") == 1


def test_two_results_talk_side_by_side(tiny: Tiny) -> None:
    run = str(tiny.run.folder.path)
    done = subprocess.run(
        [sys.executable, "-m", "harness", "chat", run, run, "--max-new-tokens", "4",
         "--device", "cpu"],
        input="hello\n/new\nagain\n\nnever read\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{tiny.run.record.plan.variant}, seed 0: ") == 4


def answered(tiny: Tiny, tmp_path: Path, width: int) -> str:
    """What a terminal of this width shows of two answers."""
    speakers = [speaker(tiny, tmp_path / str(n)) for n in range(2)]
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    before: list[list[Message]] = [[], []]
    after = answer_all(speakers, before, "Where do otters sleep?", console)
    assert [len(history) for history in after] == [2, 2]
    return screen.getvalue()


def test_answers_stand_in_columns_where_the_terminal_is_wide(tiny: Tiny, tmp_path: Path) -> None:
    name = f"{tiny.run.record.plan.variant}, seed 0"
    last = answered(tiny, tmp_path, 100).split("\x1b[2K")[-1]
    assert any(line.count(name) == 2 for line in last.splitlines()), last
    narrow = answered(tiny, tmp_path, 50)
    assert narrow.count(f"{name}: ") == 2


def test_a_conversation_that_is_too_long_is_said_in_its_place(tiny: Tiny, tmp_path: Path) -> None:
    speakers = [speaker(tiny, tmp_path)]
    screen = io.StringIO()
    console = Console(file=screen, width=80)
    assert answer_all(speakers, [[]], "otter " * 200, console) == [[]]
    assert "the conversation has" in screen.getvalue()
