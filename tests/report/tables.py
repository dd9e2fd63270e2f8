"""Tables of a report as a reader sees them: rows of text by column title."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.report.blocks import Block, Caveat, Details, Prose, Section, Table


def every_block(blocks: Iterable[Block]) -> Iterator[Block]:
    """Blocks in reading order, those that are folded away included."""
    for block in blocks:
        yield block
        if isinstance(block, Details):
            yield from every_block(block.blocks)


def texts(table: Table) -> list[dict[str, str]]:
    """What each row says, by column title."""
    titles = [column.title for column in table.columns]
    return [dict(zip(titles, (cell.text for cell in row), strict=True)) for row in table.rows]


def table_of(section: Section | None, name: str) -> list[dict[str, str]]:
    """The rows of one table of a section."""
    assert section is not None
    found = (block for block in every_block(section.blocks) if isinstance(block, Table))
    return texts(next(table for table in found if table.name == name))


def said(section: Section | None) -> str:
    """All paragraphs and caveats of a section, those that are folded away included."""
    assert section is not None
    blocks = every_block(section.blocks)
    return " ".join(block.text for block in blocks if isinstance(block, Prose | Caveat))
