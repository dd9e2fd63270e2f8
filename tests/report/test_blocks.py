"""Blocks: tables without empty columns, and long ones folded away."""

from __future__ import annotations

import pytest

from harness.report.blocks import (
    SCREEN,
    Cell,
    Column,
    Details,
    Table,
    code,
    folded,
    prose,
    strong,
    unknown,
    without_empty_columns,
)


def table(*rows: tuple[Cell, ...]) -> Table:
    columns = (Column("variant", number=False), Column("score"), Column("energy"))
    return Table("t", columns, rows, "A caption.", tags=((("bits", "4"),),) * len(rows))


def row(name: str, score: Cell, energy: Cell) -> tuple[Cell, ...]:
    return Cell(name, name), score, energy


def test_a_column_that_no_row_fills_is_left_out() -> None:
    found = without_empty_columns(
        table(row("a", Cell("1", 1), unknown()), row("b", Cell("2", 2), unknown()))
    )
    assert [column.title for column in found.columns] == ["variant", "score"]
    assert [len(cells) for cells in found.rows] == [2, 2]
    assert found.tags == (((("bits", "4")),),) * 2, "what rows are filtered by stays"


def test_one_value_keeps_a_column() -> None:
    found = without_empty_columns(
        table(row("a", Cell("1", 1), unknown()), row("b", unknown(), Cell("2", 2)))
    )
    assert len(found.columns) == 3


def test_a_dash_with_a_meaning_is_no_unknown() -> None:
    found = without_empty_columns(table(row("a", Cell("1", 1), Cell("–", 0.0))))
    assert len(found.columns) == 3


def test_a_table_without_rows_keeps_its_headings() -> None:
    assert without_empty_columns(table()) == table()


@pytest.mark.parametrize(("rows", "is_folded"), [(1, False), (SCREEN, False), (SCREEN + 1, True)])
def test_a_table_longer_than_a_screen_is_folded(rows: int, is_folded: bool) -> None:
    made = table(*(row(str(place), unknown(), unknown()) for place in range(rows)))
    found = folded(made, "All of them")
    assert isinstance(found, Details) == is_folded
    if isinstance(found, Details):
        assert (found.summary, found.blocks) == ("All of them", (made,))


def test_a_paragraph_is_its_words_in_their_order() -> None:
    found = prose("Use ", code("lora"), ", ", strong("now"), ".", bullet=True)
    assert found.text == "Use lora, now."
    assert [span.style for span in found.spans] == ["", "code", "", "strong", ""]
    assert found.bullet


def test_the_unknown_sorts_last_and_stands_back() -> None:
    assert (unknown().text, unknown().sort, unknown().tone) == ("–", None, "muted")
