"""Chat: the command that lets a person talk to one result, or to several side by side."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

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

NARROWEST = 30  # letters of a column that can still be read


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
    from harness.deploy.speak import AnswerStyle, SpeakerRequest, open_speaker
    from harness.spec.device import detect_device

    found = [find_result(name, runs_folder(reports)) for name in runs]
    decoding = AnswerStyle(max_new_tokens, temperature, seed)
    wanted = SpeakerRequest(wanted_form, detect_device(device.value), decoding, trust_remote_code)
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
        histories = answer_all(speakers, histories, text, out)


def answer_all(
    speakers: Sequence[Speaker],
    histories: Sequence[list[Message]],
    text: str,
    console: Console,
) -> list[list[Message]]:
    """Print every answer as it comes, in columns where there is room; all conversations after it.

    Without a terminal the answers stand below each other.
    """
    paired = list(zip(speakers, histories, strict=True))
    wide = console.is_terminal and console.width >= NARROWEST * len(speakers)
    if len(speakers) == 1 or not wide:
        return [_below(speaker, history, text, console) for speaker, history in paired]
    columns = Columns([speaker.name for speaker in speakers])
    with Live(columns, console=console, refresh_per_second=4, vertical_overflow="visible"):
        return [
            _one_turn(speaker, history, text, partial(columns.write, index))
            for index, (speaker, history) in enumerate(paired)
        ]


class Columns:
    """Answers side by side, each below the name of who gives it."""

    def __init__(self, names: Sequence[str]) -> None:
        """Take the names from left to right."""
        self._names = list(names)
        self._texts = ["" for _ in names]

    def write(self, index: int, piece: str) -> None:
        """Add to the answer of one column."""
        self._texts[index] += piece

    def __rich__(self) -> Table:
        """The table as it stands."""
        table = Table(box=box.SIMPLE, expand=True)
        for name in self._names:
            table.add_column(Text(name), ratio=1, overflow="fold")
        table.add_row(*(Text(text.strip()) for text in self._texts))
        return table


def _below(speaker: Speaker, history: list[Message], text: str, console: Console) -> list[Message]:
    def write(piece: str) -> None:
        console.print(piece, end="", markup=False, highlight=False, soft_wrap=True)

    console.print(f"{speaker.name}: ", style="bold", end="", markup=False, highlight=False)
    after = _one_turn(speaker, history, text, write)
    console.print()
    return after


def _one_turn(
    speaker: Speaker, history: list[Message], text: str, write: Callable[[str], None]
) -> list[Message]:
    """Write the answer as it comes; the conversation with both turns."""
    from harness.corpus.conversation import Message
    from harness.deploy.speak import user_says

    asked = user_says(text, history)
    pieces = []
    try:
        for piece in speaker.stream(asked):
            write(piece)
            pieces.append(piece)
    except CorpusError as error:
        write(str(error))
        return history
    reply = "".join(pieces).strip() or "…"
    return [*asked, Message(role="assistant", text=reply, id=f"turn-{len(asked)}")]
