"""Chat: the command that lets a person talk to one result, or to several side by side."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.app import out, say
from harness.cli.options import (
    DeviceKind,
    DeviceOption,
    FormOption,
    LongestAnswer,
    QuantOption,
    ReportsOption,
    SeedOption,
    TemperatureOption,
    TrustOption,
    full_form,
    runs_folder,
)
from harness.cli.terminal import NO_TEXT
from harness.errors import CorpusError
from harness.spec.form import parse_form

if TYPE_CHECKING:
    from harness.corpus.conversation import Message
    from harness.deploy.speak import Speaker


def chat(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="One or more: SUITE/VARIANT, SUITE/VARIANT/SEED or a run's folder.",
        ),
    ],
    form: FormOption = "adapter",
    quant: QuantOption = "",
    max_new_tokens: LongestAnswer = 256,
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = 0,
    device: DeviceOption = DeviceKind.auto,
    reports: ReportsOption = Path("reports"),
    trust_remote_code: TrustOption = False,
) -> None:
    """Talk to results with the chat template they were trained with; an empty line ends it."""
    wanted_form = parse_form(full_form(form, quant), where="--form")
    from harness.cli.display import Notes
    from harness.deploy.results import find_result
    from harness.deploy.speak import AnswerStyle, Wanted, open_speaker
    from harness.spec.device import detect_device

    found = [find_result(name, runs_folder(reports)) for name in runs]
    decoding = AnswerStyle(max_new_tokens, temperature, seed)
    wanted = Wanted(wanted_form, detect_device(device.value), decoding, trust_remote_code)
    with tempfile.TemporaryDirectory() as scratch:
        speakers = []
        with Notes(out) as notes:
            for index, run in enumerate(found):
                folder = Path(scratch) / str(index)
                folder.mkdir()
                speakers.append(open_speaker(run, wanted, folder, notes))
        _talk(speakers)


def _talk(speakers: Sequence[Speaker]) -> None:
    """Read the user's turns until an empty line or the end of the input; /new begins again."""
    histories: list[list[Message]] = [[] for _ in speakers]
    say("an empty line ends the conversation, /new begins another")
    while True:
        try:
            text = out.input("you: ", markup=False).strip()
        except EOFError:
            return
        if not text:
            return
        if NO_TEXT.search(text):
            say(
                f"those bytes are no {sys.stdin.encoding} text; PYTHONIOENCODING=utf-8 changes that"
            )
            continue
        if text == "/new":
            histories = [[] for _ in speakers]
            continue
        histories = [
            _one_turn(speaker, history, text)
            for speaker, history in zip(speakers, histories, strict=True)
        ]


def _one_turn(speaker: Speaker, history: list[Message], text: str) -> list[Message]:
    """Print the answer as it comes; the conversation with both turns."""
    from harness.corpus.conversation import Message
    from harness.deploy.speak import user_says

    asked = user_says(text, history)
    out.print(f"{speaker.name}: ", style="bold", end="", markup=False, highlight=False)
    pieces = []
    try:
        for piece in speaker.stream(asked):
            out.print(piece, end="", markup=False, highlight=False, soft_wrap=True)
            pieces.append(piece)
    except CorpusError as error:
        say(str(error), style="yellow")
        return history
    out.print()
    reply = "".join(pieces).strip() or "…"
    return [*asked, Message(role="assistant", text=reply, id=f"turn-{len(asked)}")]
