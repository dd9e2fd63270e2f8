"""Console: the ranking as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.report.build import Report
from harness.report.ranking import ranking

if TYPE_CHECKING:
    from rich.table import Table as RichTable

STYLES = {"good": "green", "bad": "red", "muted": "dim", "": ""}


def ranking_table(report: Report) -> RichTable:
    """The report's ranking table for rich."""
    from rich.table import Table as RichTable
    from rich.text import Text

    table = ranking(report.evidence)
    shown = RichTable(title=report.title, caption=table.caption, title_justify="left")
    for column in table.columns:
        shown.add_column(
            Text(column.title), justify="right" if column.number else "left", overflow="fold"
        )
    for row in table.rows:
        shown.add_row(*(Text(cell.text, style=STYLES[cell.tone]) for cell in row))
    return shown
