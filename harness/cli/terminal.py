"""Terminal: the one door through which text reaches the terminal, whoever wrote it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.segment import Segment

# Characters that steer a terminal or turn the order of a line round, and lone surrogates, which
# stand for bytes that are no text. Line ends and tabs are layout.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
NO_TEXT = re.compile("[\ud800-\udfff]")
PICTURES = 0x2400  # of the control characters, each as wide as one letter
DELETE_PICTURE = "\u2421"
UNKNOWN = "\ufffd"


def visible(text: str) -> str:
    """``text`` with a picture of one letter's width for every character that is a command."""
    return NO_TEXT.sub(UNKNOWN, STEERING.sub(lambda found: _picture(ord(found[0])), text))


def _picture(code: int) -> str:
    if code < 0x20:
        return chr(PICTURES + code)
    return DELETE_PICTURE if code == 0x7F else UNKNOWN


class Door(Console):
    """A console that draws colours and tables itself, and shows all other commands as text."""

    drawing = 0
    """How many frames are drawn again and again below what is printed."""

    def set_live(self, live: Live) -> bool:
        """A frame is drawn from now on."""
        topmost = super().set_live(live)
        self.drawing += 1
        return topmost

    def clear_live(self) -> None:
        """The frame is gone."""
        super().clear_live()
        self.drawing -= 1

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Segments of ``renderable``, their text made visible."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            if control is None and not text.isprintable():
                yield Segment(visible(text), style)
            else:
                yield segment


def accept_any_text() -> None:
    """Have standard output and error spell out what their encoding cannot say.

    Bytes of the input that are no text become lone surrogates, which :data:`NO_TEXT` finds.
    """
    for stream, errors in (
        (sys.stdin, "surrogateescape"),
        (sys.stdout, "backslashreplace"),
        (sys.stderr, "backslashreplace"),
    ):
        with suppress(AttributeError, ValueError):  # something that is no text file, or is closed
            stream.reconfigure(errors=errors)  # type: ignore[union-attr]


def give_up_output() -> None:
    """Drop what is still to be printed, so that the interpreter's end does not try again."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
