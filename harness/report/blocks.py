"""Blocks: the plain data a report page is made of, whatever it is written as."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from harness.report.figures.canvas import Drawing

SCREEN = 15  # rows of a table
Tone = Literal["", "good", "bad", "muted"]


@dataclass(frozen=True)
class Span:
    """A piece of running text. ``text`` is never markup: writers escape it."""

    text: str
    style: Literal["", "strong", "code"] = ""


@dataclass(frozen=True)
class Prose:
    """One paragraph; a list item when ``bullet``."""

    spans: tuple[Span, ...]
    bullet: bool = False

    @property
    def text(self) -> str:
        """The words without their style."""
        return "".join(span.text for span in self.spans)


@dataclass(frozen=True)
class Caveat:
    """A caveat the reader must not miss."""

    text: str


@dataclass(frozen=True)
class Cell:
    """One table cell: what is read, and what it sorts by (None sorts last).

    ``files`` are those that the text names, each with its words; a page on the same machine links
    them.
    """

    text: str
    sort: float | str | None = None
    tone: Tone = ""
    style: Literal["", "code", "strong"] = ""
    files: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True)
class Column:
    """A table column. Numbers stand on the right.

    A first click sorts by what is ``better``; a page hides an ``extra`` column until it is chosen.
    """

    title: str
    number: bool = True
    help: str = ""
    better: Literal["", "lower", "higher"] = ""
    extra: bool = False


@dataclass(frozen=True)
class Table:
    """A table; ``name`` is unique in the report.

    ``tags`` are what a page filters by, as (kind, value) of each row, such as ("bits", "4").
    ``opens`` names the :class:`Details` that tell more of each row. ``marked`` is what the first
    cell of the row says that is recommended.
    """

    name: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    tags: tuple[tuple[tuple[str, str], ...], ...] = ()
    opens: tuple[str, ...] = ()
    marked: str = ""


def without_empty_columns(table: Table) -> Table:
    """The table without columns in which no row has a value."""
    places = range(len(table.columns))
    kept = [
        place
        for place in places
        if not table.rows or any(row[place] != unknown() for row in table.rows)
    ]
    columns = tuple(table.columns[place] for place in kept)
    rows = tuple(tuple(row[place] for place in kept) for row in table.rows)
    return replace(table, columns=columns, rows=rows)


@dataclass(frozen=True)
class Fact:
    """One line of an answer: what it is about, its value, and what to know of it."""

    title: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """A few facts side by side, under one heading."""

    title: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Quantity:
    """What an axis can show: a value of each row, as read, with an interval where there is one."""

    title: str
    better: Literal["lower", "higher"]
    values: tuple[float | None, ...]
    said: tuple[str, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Choosable:
    """A row in a figure whose axes are chosen: names for a wide and a narrow one, and its look."""

    label: str
    names: tuple[str, str]
    colour: str
    shape: str
    fill: str
    recommended: bool = False


@dataclass(frozen=True)
class AxesChoice:
    """What a page can draw a figure over instead; ``x`` and ``y`` are shown at first."""

    rows: tuple[Choosable, ...]
    quantities: tuple[Quantity, ...]
    x: int
    y: int


@dataclass(frozen=True)
class Figure:
    """A picture kept as data; ``name`` is its file stem, ``alt`` says what it shows.

    ``narrow`` asks for files of the form for phones too; an HTML page holds that form anyway.
    """

    name: str
    caption: str
    alt: str
    drawing: Drawing
    axes: AxesChoice | None = None
    narrow: bool = False


@dataclass(frozen=True)
class Chart:
    """A small chart for pages alone: SVG of our own making, in which all text is escaped."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Code:
    """Text to be shown as it is."""

    text: str
    language: str = ""


@dataclass(frozen=True)
class Details:
    """Blocks folded away under a summary line; ``name`` is its anchor, where it has one."""

    summary: str
    blocks: tuple[Block, ...]
    name: str = ""


Block = Prose | Caveat | Facts | Table | Figure | Chart | Code | Details


@dataclass(frozen=True)
class Section:
    """One section of the report; ``key`` is its anchor."""

    key: str
    title: str
    blocks: tuple[Block, ...] = field(default=())


def folded(table: Table, summary: str) -> Table | Details:
    """A table as it is, or under a summary line where it is longer than a screen."""
    return table if len(table.rows) <= SCREEN else Details(summary, (table,))


def prose(*parts: str | Span, bullet: bool = False) -> Prose:
    """A paragraph of plain strings and spans."""
    return Prose(tuple(p if isinstance(p, Span) else Span(p) for p in parts), bullet)


def strong(text: str) -> Span:
    """Text that stands out."""
    return Span(text, "strong")


def code(text: str) -> Span:
    """Text as typed."""
    return Span(text, "code")


def unknown() -> Cell:
    """The cell of a value nobody measured."""
    return Cell("–", None, "muted")
