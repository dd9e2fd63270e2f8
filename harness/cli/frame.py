"""Frame: what is drawn again and again on a terminal, and what a resize makes of it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.control import Control
from rich.segment import ControlType, Segment
from rich.text import Text

BAR = 40  # columns


class TerminalFrame:
    """The frame on the terminal: where that has become narrower, its lines have been broken.

    rich moves up by as many lines as it wrote, so that parts of a broken frame would stay above.
    """

    def __init__(self, console: Console) -> None:
        """Nothing has been drawn on ``console``."""
        self._console = console
        self._widths: list[int] = []

    def follow(self, frame: Group) -> None:
        """Erase what the broken lines of the frame before take up beyond their number."""
        extra = broken_lines(self._widths, self._console.width)
        if extra:
            up = ((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2))
            erase = (ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))
            self._console.control(Control(*erase, *(up * extra)))
        lines = self._console.render_lines(frame, pad=False)
        self._widths = [Segment.get_line_length(line) for line in lines]

    def forget(self) -> None:
        """Nothing of a frame is on the terminal."""
        self._widths = []


def broken_lines(widths: Sequence[int], width: int) -> int:
    """How many more lines than ``widths`` a terminal of ``width`` columns breaks them into."""
    return sum(max(0, -(-own // max(width, 1)) - 1) for own in widths)


def bar(share: float) -> Text:
    """A bar of which a share is filled."""
    filled = round(BAR * min(max(share, 0.0), 1.0))
    return Text.assemble(("━" * filled, "bar.complete"), ("━" * (BAR - filled), "bar.back"))
